"""What holds for all of the project's own tests."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis  # here: pytester forgets what a session inside a test imports, and hypothesis takes 1 s each time
import pytest

from fixtures.core.redaction.known import KNOWN

if TYPE_CHECKING:
    from collections.abc import Iterator


# Sessions in processes of their own import `tests`, too.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH"))))

# Helm runs for a tenth of a second, hundreds of times: a fifth of that is the collection of garbage.
os.environ.setdefault("GOGC", "off")

# A busy machine is slow now and then: what Hypothesis tries has no deadline of its own, pytest's timeout ends a hang.
hypothesis.settings.register_profile("project", deadline=None)
hypothesis.settings.load_profile("project")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "long: a further case, or a slow one; run by tox -e tests-long only")
    config.addinivalue_line("markers", "fuzz: reads arbitrary input; tox -e tests-long makes more of it")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without ``-m``, what is marked ``long`` does not run; pytest says how many were deselected."""
    if config.option.markexpr:
        return
    long = [item for item in items if item.get_closest_marker("long")]
    config.hook.pytest_deselected(items=long)
    items[:] = [item for item in items if item not in long]


@pytest.fixture(autouse=True)
def cache_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Sessions inside tests keep records and take locks in a cache of their own, never in the user's."""
    monkeypatch.setenv("KV_OFFLOAD_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(autouse=True)
def an_ordinary_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is drawn depends on the width and the kind of the terminal, not on those where the tests are started."""
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setenv("TERM", "xterm")


@pytest.fixture(autouse=True)
def nothing_remembered() -> None:
    """What other tests of the same process have made known as secrets is not masked here."""
    KNOWN.clear()


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> Iterator[None]:
    """Tests send signals to themselves and to what they start; a shell ignores SIGINT for jobs in the background (``&``).

    ``nohup`` ignores SIGHUP, and a wrapper with a ``trap`` may ignore SIGTERM, too. What is ignored stays ignored in every
    process that is started, and Python then installs no handler of its own.
    """
    own: dict[signal.Signals, Any] = {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGTERM: signal.SIG_DFL,
        signal.SIGHUP: signal.SIG_DFL,
    }
    ignored = [number for number in own if signal.getsignal(number) is signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, own[number])
    yield
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)
