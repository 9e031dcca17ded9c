"""Which connector runs and where its cache server is."""

from __future__ import annotations

import pytest

from fixtures.evidence.connector import connector_of, effective_connector
from tests.command_lines import FAULT, FLAG, MP, NIXL, OK, OPEN, SIZE, V1, multi, text, verdict


def at(key: str, value: str, port: int | None = None) -> str:
    extra = {key: value} | ({"lmcache.mp.port": port} if port else {})
    return text("LMCacheMPConnector", kv_connector_extra_config=extra)


@pytest.mark.parametrize(
    ("argv", "created", "name", "says"),
    [
        ((FLAG, V1), "LMCacheConnectorV1", "LMCacheConnectorV1", OK),
        ((FLAG, V1), "OffloadingConnector", "OffloadingConnector", FAULT),
        ((FLAG, V1, *SIZE), "OffloadingConnector", "OffloadingConnector", FAULT),
        # vLLM 0.11: the backend lmcache led to the in-process connector
        ((FLAG, V1, *SIZE, "--kv-offloading-backend=lmcache"), "LMCacheConnectorV1", "LMCacheConnectorV1", OK),
        ((*SIZE, "--kv-offloading-backend=lmcache"), "LMCacheConnectorV1", "LMCacheConnectorV1", OK),
        (SIZE, "SimpleCPUOffloadConnector", "SimpleCPUOffloadConnector", OK),
        ((FLAG, NIXL), "NixlPullConnector", "NixlConnector", OPEN),
        ((FLAG, text("Fast")), "FastConnector", "FastConnector", OPEN),
        ((FLAG, multi(NIXL, MP)), "MultiConnector", "MultiConnector", OK),
        # Members that are built through the factory have a line of their own, after that of the MultiConnector
        ((FLAG, multi(NIXL, MP)), "LMCacheMPConnector", "MultiConnector", OK),
        ((FLAG, multi(MP, NIXL)), "NixlPullConnector", "MultiConnector", OK),
        ((FLAG, multi(multi(MP, V1), NIXL)), "LMCacheConnectorV1", "MultiConnector", OK),
        ((FLAG, multi(V1, text("Fast"))), "FastConnector", "MultiConnector", OK),
        ((FLAG, multi(NIXL, MP)), "OffloadingConnector", "OffloadingConnector", FAULT),
        ((FLAG, multi(text("OffloadingConnector")), *SIZE), "OffloadingConnector", "OffloadingConnector", FAULT),
        ((FLAG, V1), "MultiConnector", "MultiConnector", FAULT),
        ((), "LMCacheMPConnector", "LMCacheMPConnector", OPEN),
        ((), None, None, FAULT),
    ],
)
def test_the_log_says_which_connector_runs(
    argv: tuple[str, ...], created: str | None, name: str | None, says: str
) -> None:
    found = effective_connector(connector_of(argv), created)
    assert (found.name if found else None) == name
    assert verdict(found) == says


@pytest.mark.parametrize(
    ("argv", "address"),
    [
        ((FLAG, V1), None),
        ((FLAG, MP), ("localhost", 5555)),
        ((*SIZE, "--kv-offloading-backend", "lmcache"), ("localhost", 5555)),
        (
            (
                FLAG,
                text(
                    "LMCacheMPConnector",
                    kv_connector_extra_config={"lmcache.mp.host": "tcp://kv.ns", "lmcache.mp.port": 7},
                ),
            ),
            ("kv.ns", 7),
        ),
        (
            (
                FLAG,
                text(
                    "LMCacheMPConnector",
                    kv_connector_extra_config={"lmcache.mp.server_urls": ["tcp://a:1", "tcp://b:2"]},
                ),
            ),
            ("a", 1),
        ),
        (
            (FLAG, multi(NIXL, text("LMCacheMPConnector", kv_connector_extra_config={"lmcache.mp.host": "kv"}))),
            ("kv", 5555),
        ),
        ((FLAG, text("LMCacheMPConnector", kv_connector_extra_config={"lmcache.mp.port": "x"})), ("localhost", 5555)),
        ((FLAG, at("lmcache.mp.port", "9" * 5000)), ("localhost", 5555)),
        ((FLAG, at("lmcache.mp.host", "tcp://kv:" + "9" * 5000)), ("kv", 5555)),
        ((FLAG, at("lmcache.mp.host", "tcp://[::1]", port=6555)), ("::1", 6555)),
        ((FLAG, at("lmcache.mp.host", "tcp://[fd00::7]:7", port=6555)), ("fd00::7", 7)),
        ((FLAG, at("lmcache.mp.server_urls", "[::1]:1,[::2]:2")), ("::1", 1)),
    ],
)
def test_where_the_cache_server_is(argv: tuple[str, ...], address: tuple[str, int] | None) -> None:
    found = connector_of(argv)
    assert found is not None
    assert found.cache_server == address


@pytest.mark.parametrize(
    ("argv", "further"),
    [
        ((FLAG, MP), ()),
        ((FLAG, NIXL), ()),
        ((FLAG, text("VendorConnector")), ()),
        ((FLAG, multi(MP, NIXL)), ()),
        ((FLAG, multi(V1, text("OffloadingConnector"))), ("OffloadingConnector",)),
        ((FLAG, multi(text("OffloadingConnector"), V1)), ("LMCacheConnectorV1",)),
        ((FLAG, multi(multi(MP, MP), NIXL)), ("LMCacheMPConnector",)),
        ((FLAG, multi(V1, text("VendorConnector"))), ("VendorConnector",)),
    ],
)
def test_which_other_members_keep_kv(argv: tuple[str, ...], further: tuple[str, ...]) -> None:
    found = connector_of(argv)
    assert found is not None
    assert tuple(one.name for one in found.further) == further
