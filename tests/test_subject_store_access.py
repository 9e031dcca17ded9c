"""By whose name, which password and which certificate the store of a tier is asked that the suite did not start."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from fixtures.core.deadlines import Deadlines
from fixtures.core.processes import ProcessRef
from fixtures.core.record import Server
from fixtures.evidence.adapters import Adapter
from fixtures.subject.host_access import HostAccess
from fixtures.subject.store_access import access_in_process, client_of


@pytest.mark.parametrize(
    ("settings", "access"),
    [
        ({"remote_url": "redis://h:1"}, ((), None)),
        ({"remote_url": "redis://:se%40cret@h:1/0"}, (("se@cret",), None)),
        ({"remote_url": "redis://lm:secret@h:1?socket_timeout=5"}, (("lm", "secret"), None)),
        ({"remote_url": "rediss://lm:secret@h:1?ssl_cert_reqs=none"}, (("lm", "secret"), {"ssl_cert_reqs": "none"})),
        ({"remote_url": "rediss://h"}, ((), {})),
        (
            {"remote_url": "resp://h:1", "extra_config": {"username": "lm", "password": "own"}, "resp_password": "x"},
            (("lm", "own"), None),
        ),
        ({"remote_url": "resp://h:1", "extra_config": '{"password": "own"}'}, (("own",), None)),
        ({"remote_url": "resp://h:1", "resp_username": "lm", "resp_password": "variable"}, (("lm", "variable"), None)),
        ({"remote_url": "resp://h:1", "extra_config": "{"}, ((), None)),
        ({}, ((), None)),
    ],
)
def test_in_process_by_the_url_the_extra_configuration_or_a_variable(settings: dict[str, Any], access: Any) -> None:
    assert access_in_process(settings) == access


def test_a_cache_server_asks_by_its_adapter_before_its_variables() -> None:
    specs = [
        {"type": "resp", "host": "a", "port": 1},
        {"type": "resp", "host": "b", "port": 1, "username": "lm", "password": "own"},
    ]
    words = [word for spec in specs for word in ("--l2-adapter", json.dumps(spec))]
    env = {"LMCACHE_RESP_PASSWORD": "variable"}
    process = ProcessRef(pid=1, started=0.0)
    server = Server(name="kv", url="http://kv", argv=("lmcache", "server", *words), env=env, process=process)
    subject: Any = SimpleNamespace(
        engine=SimpleNamespace(cache_server=SimpleNamespace(server=server)),
        record=SimpleNamespace(stores=[]),
        access=HostAccess(SimpleNamespace(servers=[])),  # type: ignore[arg-type]
        context=SimpleNamespace(deadlines=Deadlines()),
    )
    for host, expected in (("a", ("variable",)), ("b", ("lm", "own"))):
        client = client_of(subject, Adapter("resp", "remote", host=host, port=1))
        assert client is not None
        assert client._credentials == expected
    server.process = None
    assert client_of(subject, Adapter("resp", "remote", host="a", port=1)) is None
