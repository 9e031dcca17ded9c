"""``python -m MODULE`` in a process of its own, forked from one that has imported what takes long (``lab.warm``).

It starts anew in all but that: its environment, its folder, its output and its signals are its own.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["lab.warm"])
QUIET = ("-W", "ignore::pytest.PytestAssertRewriteWarning")
"""For pytest: plugins that are imported already keep their asserts as they are."""


def start(
    module: str,
    arguments: Sequence[str],
    folder: Path,
    out: Path,
    err: Path | None = None,
    variables: Mapping[str, str] | None = None,
) -> BaseProcess:
    """Start a module in ``folder``; its output goes to ``out``, its errors to ``err`` or there, too.

    Args:
        variables: its whole environment; that of this process unless it is given.
    """
    environment = dict(os.environ if variables is None else variables)
    words = [*QUIET, *arguments] if module == "pytest" else [*arguments]
    for path in filter(None, (out, err)):
        path.write_bytes(b"")
    run = FORKS.Process(target=_main, args=(module, words, environment, folder, out, err))
    run.start()
    return run


def _main(
    module: str, arguments: list[str], variables: dict[str, str], folder: Path, out: Path, err: Path | None
) -> None:
    for stream, path in ((sys.stdout, out), (sys.stderr, err or out)):
        opened = os.open(path, os.O_WRONLY | os.O_APPEND)
        os.dup2(opened, stream.fileno())
        os.close(opened)
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGCHLD):  # under nohup, or a script's trap, they are ignored
        signal.signal(number, signal.SIG_DFL)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(variables)
    sys.argv = [module, *arguments]
    sys.path[:0] = [str(folder), *filter(None, variables.get("PYTHONPATH", "").split(os.pathsep))]
    # What it has for its workers is the path of the process that this one is forked from.
    if "xdist.plugin" in sys.modules:
        sys.modules["xdist.plugin"]._sys_path[:] = sys.path
    runpy.run_module(module, run_name="__main__", alter_sys=True)
