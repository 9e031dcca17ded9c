"""A fault proxy between clients and one engine.

Invariant: without a fault it passes everything through as it comes, byte for byte and piece by piece; when a client
disconnects, it disconnects from the engine at once, too. A proxy that buffers, or that keeps the request of a client that has
disconnected, would be a fault of its own, and every verdict behind it would be about the proxy.

Each fault counts how often it acted (``server.Proxy.fired``): a fault that never acted was not seeded.
"""
