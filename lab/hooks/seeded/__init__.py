"""Faults inside the real engine and the real cache server, switched on and off while they run.

Invariant: with an empty control file every wrapped function does what it did before; a stack with these hooks is a healthy
one. Each fault that acts writes one line to ``fired.jsonl``: a fault that is switched on and never acts has not been
seeded, and a verdict about it would be worth nothing.

The control file is beside this package: ``{"id": ..., "hook": NAME, "params": {...}}``, or nothing. It is read again when
it was replaced, so one stack serves every fault of this kind one after the other. The modules below are
wrapped when they are first imported; nothing of LMCache or vLLM is imported here before its process does it.

This module runs under the engine's own interpreter: standard library only, no import from the project.
"""

from .process import install
from .targets import HOOKS

__all__ = ["HOOKS", "install"]
