"""``lab.forked``: what is started is as ``python -m MODULE`` would be."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import psutil
import pytest

from fixtures.core.waiting import poll
from tests import apart

if TYPE_CHECKING:
    from pathlib import Path

SAYS = """
import os, sys
if __name__ == "__main__":
    import beside
    print(sys.argv[1:], os.getcwd(), os.environ["ONLY_HERE"], beside.__file__)
    print("error", file=sys.stderr)
    sys.exit(7)
"""


@pytest.mark.long
def test_it_has_its_own_words_folder_variables_and_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "says.py").write_text(SAYS)
    (tmp_path / "site").mkdir()
    (tmp_path / "site/beside.py").touch()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    for given in ("first", "second"):
        monkeypatch.setenv("ONLY_HERE", given)
        result = apart.run(tmp_path, "says", "a", "b")
        assert result.ret == 7
        assert result.outlines == [f"['a', 'b'] {tmp_path} {given} {tmp_path}/site/beside.py"]
        assert result.errlines == ["error"]


@pytest.mark.long
def test_workers_of_xdist_find_what_it_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site/only_here.py").touch()
    (tmp_path / "test_one.py").write_text("import only_here\n\ndef test_one(): pass\n")
    (tmp_path / "pytest.ini").write_text(f"[pytest]\naddopts = {apart.ADDOPTS}\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    apart.run(tmp_path, "pytest", "-n1").assert_outcomes(passed=1)


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 1), ("SIGHUP", -1), ("SIGTERM", -15), ("SIGKILL", -9)])
def test_signals_do_what_they_do_to_any_process(tmp_path: Path, name: str, code: int) -> None:
    (tmp_path / "waits.py").write_text("import time\nprint('waits', flush=True)\ntime.sleep(60)\n")
    out = tmp_path / "out.txt"
    started = apart.Started("waits", [], tmp_path, out)
    assert poll(out.read_text, lambda text: "waits" in text, 60)
    assert psutil.pid_exists(started.pid)
    started.send_signal(getattr(signal, name))
    assert started.wait(60) == code
    assert ("KeyboardInterrupt" in out.read_text()) == (name == "SIGINT")
