"""Faults of any process: its log, signals, model and options."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
from typing import Any

from .control import FOLDER, STATE, fault, fired, params, wrap, wrapper
from .targets import Finder


@wrapper
def _emit(original: Any, self: Any, record: Any) -> Any:
    if params("log-full"):
        fired("a log line could not be written")
        return None  # logging swallows OSError(ENOSPC) just so: nothing reaches the file, the program goes on
    if (wanted := params("silent")) and record.levelno >= logging.WARNING and wanted["about"] in record.name:
        fired("a warning was not written")
        return None
    return original(self, record)


def install() -> None:
    """Make ready to act; nothing is changed until the control file says so."""
    sys.meta_path.insert(0, Finder())
    wrap(logging.StreamHandler, "emit", _emit)
    STATE["deaf"] = params("deaf-when-restarted") is not None  # it was started while the fault was on
    STATE["started"] = fault().get("hook")
    if params("ignore-sigterm"):
        _ignore_sigterm()
    _other_model()
    _other_words()


def _of_instance(wanted: Any) -> bool:
    """Whether a fault is meant for this engine."""
    return bool(wanted) and os.environ.get("LMCACHE_LMCACHE_INSTANCE_ID", "").endswith(wanted["instance"])


def _other_model() -> None:
    """One engine of several serves its model from another folder: a link to the configured one."""
    if _of_instance(params("other-model")) and "--model" in sys.argv:
        at = sys.argv.index("--model") + 1
        link = FOLDER / "other-model"
        with contextlib.suppress(FileExistsError):
            link.symlink_to(sys.argv[at])
        fired(f"serves {link} in place of {sys.argv[at]}")
        sys.argv[at] = str(link)


def _other_words() -> None:
    """One engine of several is started with more options than the others."""
    wanted = params("other-words")
    if wanted and _of_instance(wanted) and "--model" in sys.argv:
        fired(f"was started with {' '.join(wanted['words'])}, too")
        sys.argv += wanted["words"]


def _ignore_sigterm() -> None:
    """From now on nothing in this process can take SIGTERM as a reason to end."""
    original = signal.signal

    def keep(number: Any, handler: Any) -> Any:
        return None if number == signal.SIGTERM else original(number, handler)

    original(signal.SIGTERM, signal.SIG_IGN)
    signal.signal = keep  # type: ignore[assignment]
    fired("SIGTERM is ignored")
