"""What the ways to a stack say of themselves before it stands."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.provide.attach_provider import AttachProvider
from fixtures.provide.process_provider import ProcessProvider
from fixtures.provide.release_provider import ReleaseProvider
from fixtures.provide.target import Target

if TYPE_CHECKING:
    from fixtures.provide.provider import Provider

CPU: Any = SimpleNamespace(device="cpu")
CUDA: Any = SimpleNamespace(device="cuda")


@pytest.mark.parametrize(
    ("provider", "absent"),
    [
        (ProcessProvider(CPU, Target()), {"gpu", "release", "router"}),
        (ProcessProvider(CUDA, Target()), {"release", "router"}),
        (ReleaseProvider(CPU, Target()), {"gpu"}),
        (ReleaseProvider(CUDA, Target()), set()),
        (AttachProvider(CPU, Path("record.json")), {"own"}),
    ],
)
def test_what_a_kind_of_stack_cannot_have(provider: Provider, absent: set[str]) -> None:
    assert provider.unsupported == absent
