"""Imported once by the process that runs of the suite are forked from: what takes long to import, and nothing of the project.

The suite and its plugins are imported by every run, as in ``python -m pytest``; pytest rewrites their asserts only then.
"""

import jsonschema  # noqa: F401
import numpy  # noqa: F401
import openai  # noqa: F401
import prometheus_client.parser  # noqa: F401
import pydantic  # noqa: F401
import pytest  # noqa: F401
import requests  # noqa: F401
import rich.live  # noqa: F401
import tenacity  # noqa: F401
import yaml  # noqa: F401
