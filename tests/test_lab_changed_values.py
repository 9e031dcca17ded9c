"""Values and files of a stack that the lab changes."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from fixtures.core.tree import get_path
from lab import process_faults
from lab.catalogue.model import Values
from lab.catalogue.settings import ENCRYPTED, server_with
from lab.changed_values import changed_config, check_values, own_router
from lab.seeding_subject import LabError, Subject


def test_values_are_written_in_the_format_of_the_chart(tmp_path: Path) -> None:
    values = Values(
        {"lmcacheConfig.cpuOffloadingBufferSize": "2Gi", "vllmConfig.maxModelLen": None},
        env=(("NAME", "1"),),
        extra_args=("--flag",),
    )
    config = changed_config("some", Subject(), values, tmp_path)
    model = config.values.serving_engine_spec.model_spec[0].model_dump(by_alias=True)
    assert config.name == "some"
    assert model["lmcacheConfig"]["cpuOffloadingBufferSize"] == "2Gi"
    assert model["vllmConfig"]["extraArgs"][-1] == "--flag"
    assert model["env"][-1]["name"] == "NAME"


@pytest.mark.parametrize(
    ("shows", "absent", "good"), [("abc", False, True), ("xyz", False, False), ("abc", True, False)]
)
def test_a_change_of_values_has_to_show(shows: str, absent: bool, good: bool) -> None:
    record = SimpleNamespace(engines=[], routers=[], everything=[], model_dump_json=lambda indent: "abc")
    values = Values({}, where="record", shows=shows, absent=absent)
    if good:
        check_values(record, values)  # type: ignore[arg-type]
    else:
        with pytest.raises(LabError, match="does not show the fault"):
            check_values(record, values)  # type: ignore[arg-type]


def test_a_tier_below_the_cache_server_gets_other_keys(tmp_path: Path) -> None:
    config = changed_config("some", Subject(), ENCRYPTED, tmp_path)
    adapters = [
        json.loads(container["command"][container["command"].index("--l2-adapter") + 1])
        for thing in yaml.safe_load(config.values_path.read_text())["extraObjects"]
        for container in thing["spec"].get("template", {}).get("spec", {}).get("containers", ())
    ]
    key = adapters[0].pop("serde")["master_key_path"]
    assert adapters == [{"type": "fs", "base_path": "/var/lib/lmcache/kv"}]
    assert len(Path(key).read_text()) >= 16


def test_words_for_the_cache_server_reach_its_command(tmp_path: Path) -> None:
    config = changed_config("some", Subject(), server_with("--coordinator-url", "http://c:1"), tmp_path)
    commands = [
        container["command"]
        for one in config.values.extra_objects or []
        for container in get_path(one, "spec", "template", "spec", "containers", default=[])
    ]
    assert commands[0][:2] == ["lmcache", "server"]
    assert commands[0][-2:] == ["--coordinator-url", "http://c:1"]


def with_folder(folder: Path) -> Any:
    adapter = json.dumps({"type": "fs", "base_path": str(folder)})
    server = SimpleNamespace(argv=("lmcache", "server", "--l2-adapter", adapter), env={})
    return SimpleNamespace(record=SimpleNamespace(cache_servers=[server]))


def test_the_folder_of_a_tier_is_gone_for_a_while(tmp_path: Path) -> None:
    folder = tmp_path / "tier"
    folder.mkdir()
    (folder / "chunk").write_text("x")
    with process_faults.without_folder(with_folder(folder)):
        assert not folder.exists()
    assert (folder / "chunk").read_text() == "x"
    with pytest.raises(LabError, match="was there again"), process_faults.without_folder(with_folder(folder)):
        folder.mkdir()
    assert (folder / "chunk").read_text() == "x"


def test_the_folder_of_a_tier_is_write_protected_for_a_while(tmp_path: Path) -> None:
    folder = tmp_path / "tier"
    folder.mkdir()
    try:
        with process_faults.write_protected(with_folder(folder)), pytest.raises(OSError):
            (folder / "chunk").write_text("x")
    except LabError as error:
        pytest.skip(f"this file system has no such attribute: {error}")
    (folder / "chunk").write_text("x")


def test_the_folder_of_a_tier_is_on_a_small_disk_for_a_while(tmp_path: Path) -> None:
    folder = tmp_path / "tier"
    folder.mkdir()
    try:
        with process_faults.on_a_small_disk(with_folder(folder), 1), pytest.raises(OSError, match="No space left"):
            (folder / "chunk").write_bytes(bytes(2 << 20))
    except LabError as error:
        pytest.skip(f"a file system cannot be mounted here: {error}")
    assert list(folder.iterdir()) == []


def test_a_stack_without_a_disk_tier_has_no_such_folder() -> None:
    bench = SimpleNamespace(record=SimpleNamespace(cache_servers=[]))
    with pytest.raises(LabError, match="no cache server"), process_faults.without_folder(bench):  # type: ignore[arg-type]
        pass


def test_a_router_of_ones_own_has_to_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KV_OFFLOAD_ROUTER_PYTHON", raising=False)
    with pytest.raises(LabError, match="set KV_OFFLOAD_ROUTER_PYTHON to an interpreter"):
        own_router()
    monkeypatch.setenv("KV_OFFLOAD_ROUTER_PYTHON", "/opt/router/bin/python")
    assert own_router() == Path("/opt/router/bin/python")
