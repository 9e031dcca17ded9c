"""The conformance tests: one module per link of the chain that proves offload."""
