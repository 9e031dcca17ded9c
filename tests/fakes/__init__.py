"""Stand-ins for vLLM and LMCache, for tests of start-up and tear-down only: ``make(folder)`` gives ``--engine-python``.

What they imitate: real processes with the real command lines, in a folder that looks like a virtual environment. The
engine is an API server and a child (vLLM: the engine core) in one process group, both with a file of /dev/shm mapped;
it is healthy only after the cache server answered its registration. Both answer the few endpoints that starting, asking
and counting need. Recorded facts that they follow (measured.md and the recordings of vLLM 0.32 and LMCache 0.5.6): log
lines and their prefixes, ``/v1/models`` with ``max_model_len``, names and labels of the counters, the shape of LMCache's
``/config``, ``/reset_prefix_cache`` that drops the GPU copy only, and where the tokens of a prompt then come from.

What they do not imitate: computing, streaming, chat, tokenizing, errors of the API, time, memory, eviction, ZeroMQ, and
that one engine's KV is found by another. No conformance claim may be tested on them.

How they misbehave is read when they start from ``behaviour.json`` in that folder, ``{"engine": [...], "server": [...]}``;
see ``Fake.behave``.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
VLLM, LMCACHE, TORCH = "0.32.0+cpu", "0.5.6", "2.13.0+cpu"


@dataclass(frozen=True)
class Fake:
    """An environment of stand-ins."""

    folder: Path

    @property
    def python(self) -> Path:
        """For ``--engine-python``."""
        return self.folder / "bin" / "python"

    def behave(self, engine: str = "", server: str = "") -> None:
        """Choose what the next processes do, by words: ``behave(engine="stubborn slow")``.

        Engine: ``dies`` (while loading, with a traceback), ``hangs`` (while loading), ``slow`` (2 s until healthy),
        ``stubborn`` (ignores SIGTERM), ``orphans`` (its child outlives it), ``dies-after-N`` and
        ``stalls-after-N`` (completions), ``fails``
        (its first completion is a server error). Server: ``dies``, ``hangs``, ``stubborn``, ``refuses`` (up and
        healthy, but no engine can register).
        """
        text = json.dumps({"engine": engine.split(), "server": server.split()})
        (self.folder / "behaviour.json").write_text(text)


def make(folder: Path, *, device: str = "cpu") -> Fake:
    """Make an environment in ``folder``, which must not exist."""
    site = folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    files = {
        folder / "pyvenv.cfg": f"home = {Path(sys.base_prefix) / 'bin'}\ninclude-system-site-packages = false\n",
        site / "vllm/entrypoints/openai/api_server.py": _main("engine"),
        site / "lmcache/v1/config.py": '_CONFIG_DEFINITIONS = {"max_local_cpu_size": {}, "chunk_size": {}}\n',
        site / "torch/version.py": f"cuda = {'None' if device == 'cpu' else repr('13.0')}\n",
        folder / "bin/lmcache": f"#!{folder / 'bin/python'}\n{_main('server')}",
    }
    for package in ("vllm", "vllm/entrypoints", "vllm/entrypoints/openai", "lmcache", "lmcache/v1", "torch"):
        files[site / package / "__init__.py"] = ""
    for name, version in (("vllm", VLLM), ("lmcache", LMCACHE), ("torch", TORCH)):
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        files[site / f"{name}-{version}.dist-info" / "METADATA"] = metadata
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (folder / "bin/lmcache").chmod(0o755)
    (folder / "bin/python").symlink_to(os.path.realpath(sys.executable))
    fake = Fake(folder)
    fake.behave()
    return fake


def make_router(folder: Path, *, program: str = "vllm-router") -> Path:
    """Make an environment with a stand-in for a router in ``folder``; returns its interpreter."""
    site = folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    module = "launch_router" if program == "vllm-router" else "app"
    files = {
        folder / "pyvenv.cfg": f"home = {Path(sys.base_prefix) / 'bin'}\ninclude-system-site-packages = false\n",
        folder / "behaviour.json": json.dumps({"router": []}),
        site / "vllm_router/__init__.py": "",
        site / f"vllm_router/{module}.py": _main("router"),
        site / "vllm_router-0.1.17.dist-info/METADATA": "Metadata-Version: 2.1\nName: vllm-router\nVersion: 0.1.17\n",
    }
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    python = folder / "bin" / "python"
    python.parent.mkdir()
    python.symlink_to(os.path.realpath(sys.executable))
    return python


def _main(what: str) -> str:
    return f"import sys\nsys.path.insert(0, {str(HERE)!r})\nimport servers\nservers.{what}()\n"


def clear_shared_memory(folder: Path) -> None:
    """Remove what stand-ins from below ``folder`` left in shared memory; those of other tests run beside them."""
    for path in Path("/dev/shm").glob("kvoc-fake-*"):
        with contextlib.suppress(FileNotFoundError):
            if path.read_bytes().startswith(os.fsencode(f"{folder}{os.sep}")):
                path.unlink()


def make_config(folder: Path, *, replicas: int = 1, models: int = 1, cache_server: bool = True) -> Path:
    """Make a configuration for the fakes, with a model folder that passes for one; returns ``folder``."""
    model = folder / "model"
    model.mkdir(parents=True)
    sizes = {"num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 2, "vocab_size": 32768}
    (model / "config.json").write_text(json.dumps({**sizes, "max_position_embeddings": 4096, "model_type": "mistral"}))
    (model / "model.safetensors").write_bytes(bytes(2048))
    (model / "tokenizer.json").write_text("{}")
    entry = f"""
      name: fake
      repository: lmcache/vllm-openai
      tag: latest
      modelURL: {model}
      replicaCount: {replicas}
      requestCPU: 1
      requestMemory: 1Gi
      vllmConfig: {{enablePrefixCaching: true, maxModelLen: 4096}}
      lmcacheConfig: {{enabled: {str(cache_server).lower()}, cpuOffloadingBufferSize: "1"}}
    """
    entries = ""
    for number in range(models):
        named = textwrap.dedent(entry).strip().replace("name: fake", f"name: fake{number or ''}")
        entries += f"  - {named}\n".replace("\n", "\n    ").rstrip() + "\n"
    (folder / "values.yaml").write_text(f"servingEngineSpec:\n  modelSpec:\n{entries}")
    (folder / "expect.yaml").write_text("description: stand-ins\ndevice: cpu\n")
    return folder
