"""Signals wait until the end of what must not be interrupted."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from fixtures.core.deferred_signals import defer_signals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fixtures.core.processes import ProcessRef

    Start = Callable[..., ProcessRef]


@pytest.fixture
def default_handlers() -> Iterator[None]:
    """Python's own handlers: the plugins of this project, which are loaded here too, have others."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("default_handlers")
def test_a_signal_waits_until_the_end_of_what_must_not_be_interrupted() -> None:
    done = []

    def work() -> None:
        with defer_signals():
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGTERM)
            done.append("all of it")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == ["all of it"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_signals_that_were_seen_to_are_dropped() -> None:
    with defer_signals() as held:
        with defer_signals():
            signal.raise_signal(signal.SIGHUP)
        assert held == [signal.SIGHUP], "the inner one hands it to the outer one"
        held.clear()
