"""Imported once by the process that sessions of pytest are forked from: what takes long to import.

Not the plugins of the project: pytest rewrites their asserts when it imports them. Nothing here keeps a state, reads a
variable of the environment or starts a thread when it is imported.
"""

import contextlib
import importlib
import pkgutil
from importlib.metadata import entry_points

import numpy  # noqa: F401
import openai  # noqa: F401
import prometheus_client.parser  # noqa: F401
import pydantic  # noqa: F401
import pytest  # noqa: F401
import requests  # noqa: F401
import rich.live  # noqa: F401
import tenacity  # noqa: F401
import yaml  # noqa: F401

import fixtures

with contextlib.suppress(ImportError):
    import kubernetes.stream  # noqa: F401

for plugin in entry_points(group="pytest11"):
    if plugin.name != "hypothesispytest":
        plugin.load()
for module in pkgutil.walk_packages(fixtures.__path__, "fixtures."):
    if not module.name.startswith("fixtures.plugin.") and module.name != "fixtures.__main__":
        importlib.import_module(module.name)
