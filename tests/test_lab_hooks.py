"""The start-up hook: dormant without a control file, switched on and off without a restart, and it leaves its proof."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest

from lab.catalogue.model import Hook
from lab.hook_control import acted, copy_hooks, write_control

if TYPE_CHECKING:
    from pathlib import Path

MODULE = """
class TokenHasher:
    chunk_size = 4
    def hash_tokens(self, tokens, prefix_hash=None):
        return hash((prefix_hash, tuple(tokens)))
    def hash_to_bytes(self, value):
        return str(value).encode()
    def compute_chunk_hashes(self, token_ids, prefix_hash=None, start=0, end=None):
        found = []
        for at in range(0, len(token_ids) - len(token_ids) % 4, 4):
            prefix_hash = self.hash_tokens(token_ids[at:at + 4], prefix_hash)
            found.append(self.hash_to_bytes(prefix_hash))
        return found
"""


@pytest.fixture
def hooks(tmp_path: Path) -> Path:
    folder = tmp_path / "lmcache" / "v1" / "multiprocess"
    folder.mkdir(parents=True)
    for parent in (folder, *folder.parents[:2]):
        (parent / "__init__.py").touch()
    (folder / "token_hasher.py").write_text(MODULE)
    return copy_hooks(tmp_path / "hooks")


def run(hooks: Path, script: str) -> str:
    environment = os.environ | {"PYTHONPATH": f"{hooks}{os.pathsep}{hooks.parent}", "PYTHONHASHSEED": "0"}
    head = "from lmcache.v1.multiprocess.token_hasher import TokenHasher; h = TokenHasher()\n"
    done = subprocess.run(
        [sys.executable, "-c", head + textwrap.dedent(script)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        cwd=hooks.parent,
    )
    return done.stdout


SAME = "print(h.compute_chunk_hashes([1, 2, 3, 4]) == h.compute_chunk_hashes([1, 2, 3, 5]))"


def test_without_a_control_file_nothing_is_changed(hooks: Path) -> None:
    assert run(hooks, SAME) == "False\n"
    assert not acted(hooks, "some-fault")


def test_a_fault_acts_and_leaves_its_proof(hooks: Path) -> None:
    write_control(hooks, "some-fault", Hook("weak-hash", {"ignores": "last-token-of-a-chunk"}))
    assert run(hooks, SAME) == "True\n"
    assert acted(hooks, "some-fault")
    assert not acted(hooks, "another-fault")
    lines = [json.loads(line) for line in (hooks / "fired.jsonl").read_text().splitlines()]
    assert lines[0]["what"] == "wrapped lmcache.v1.multiprocess.token_hasher"


def test_a_fault_is_switched_on_and_off_while_the_process_runs(hooks: Path) -> None:
    control = json.dumps({"id": "x", "hook": "weak-hash", "params": {"ignores": "content"}})
    script = f"""
    import os, time
    {SAME}
    def control(text):
        with open({str(hooks / "new")!r}, "w") as file:
            file.write(text)
        os.replace({str(hooks / "new")!r}, {str(hooks / "control.json")!r})
    control({control!r})
    {SAME}
    control("")
    {SAME}
    """
    assert run(hooks, script) == "False\nTrue\nFalse\n"


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"hook": "no-such-hook"}'])
def test_a_broken_control_file_is_no_fault(hooks: Path, text: str) -> None:
    (hooks / "control.json").write_text(text)
    assert run(hooks, SAME) == "False\n"


def test_a_module_that_is_not_as_expected_is_left_alone(hooks: Path) -> None:
    (hooks.parent / "lmcache/v1/multiprocess/token_hasher.py").write_text("class TokenHasher:\n    pass\n")
    assert run(hooks, "print('goes on')") == "goes on\n"
    assert not (hooks / "fired.jsonl").exists()


def test_sigterm_is_ignored_when_asked(hooks: Path) -> None:
    write_control(hooks, "stays", Hook("ignore-sigterm", at_start=True))
    script = """
    import os, signal
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTERM)
    print("still here")
    """
    assert run(hooks, script) == "still here\n"
    assert acted(hooks, "stays")


ARGUMENTS = "import sys; print(sys.argv[1:])"


@pytest.mark.parametrize(("instance", "linked"), [("mistral-1", True), ("mistral-0", False)])
def test_one_engine_of_several_serves_from_another_folder(hooks: Path, instance: str, linked: bool) -> None:
    write_control(hooks, "fault-1", Hook("other-model", {"instance": "-1"}))
    (hooks.parent / "engine.py").write_text(ARGUMENTS)
    environment = os.environ | {"PYTHONPATH": str(hooks), "LMCACHE_LMCACHE_INSTANCE_ID": instance}
    command = [sys.executable, "-m", "engine", "--model", str(hooks.parent), "--port", "1"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, cwd=hooks.parent)
    folder = hooks / "other-model" if linked else hooks.parent
    assert done.stdout.strip() == str(["--model", str(folder), "--port", "1"])
    assert folder.resolve() == hooks.parent
    assert acted(hooks, "fault-1") == linked
