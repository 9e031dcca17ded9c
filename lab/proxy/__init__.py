"""A fault proxy between clients and one engine.

Invariant: without a fault it passes everything through as it comes, byte for byte and piece by piece; a client that hangs
up is noticed at once and hung up on at the engine too. A proxy that buffers, or that keeps a dead client's request alive,
would be a fault of its own and every verdict behind it would be about the proxy.

Each fault counts how often it acted (``server.Proxy.fired``): a fault that never acted was not seeded.
"""
