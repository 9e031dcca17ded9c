"""What holds for all of the project's own tests."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import hypothesis  # noqa: F401 - pytester forgets what a session inside a test imports, and hypothesis takes 1 s each time
import pytest

from fixtures.core import redaction as redact

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def nothing_remembered() -> None:
    """What other tests of the same process have made known as secrets is not masked here."""
    redact._KNOWN.clear()


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> Iterator[None]:
    """Tests send SIGINT to themselves and to what they start; a shell ignores it for jobs in the background (``&``).

    What is ignored stays ignored in every process that is started, and Python then installs no handler of its own.
    """
    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
