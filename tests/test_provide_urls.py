"""A deployment by its URLs: what each URL may answer, and what is said of those that cannot be used."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest
from werkzeug import Request, Response

from fixtures.core.errors import ConfigurationError, NotJudged
from fixtures.provide import urls
from fixtures.subject.stack import Stack
from tests.url_servers import KEY, MODELS, adopt, serve

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_httpserver import HTTPServer


def test_an_engine_by_its_url(httpserver: HTTPServer, tmp_path: Path) -> None:
    record = adopt(tmp_path, engines=(serve(httpserver),))
    assert [engine.url for engine in record.engines] == [httpserver.url_for("/").rstrip("/")]
    assert record.model == "mistral"
    assert record.versions == {"vllm": "0.32.0"}
    assert not record.routers
    assert Stack(record).max_model_len == 8192


@pytest.mark.parametrize("ending", ["/", "/v1", "/v1/"])
def test_a_path_prefix_and_what_people_append(httpserver: HTTPServer, tmp_path: Path, ending: str) -> None:
    base = serve(httpserver, "/team/llm")
    assert adopt(tmp_path, engines=(base + ending,)).engines[0].url == base


def test_a_redirect_is_followed_once_and_kept(httpserver: HTTPServer, tmp_path: Path) -> None:
    base = serve(httpserver, "/new")
    httpserver.expect_request("/old/v1/models").respond_with_response(
        Response(status=308, headers={"Location": f"{base}/v1/models"})
    )
    assert adopt(tmp_path, engines=(httpserver.url_for("/old"),)).engines[0].url == base


def test_a_router_as_the_only_way(httpserver: HTTPServer, tmp_path: Path) -> None:
    record = adopt(tmp_path, routers=(serve(httpserver),))
    stack = Stack(record)
    assert stack.router.base_url == record.engines[0].url
    with pytest.raises(NotJudged, match="add --url for each engine"):
        stack.engine.samples()
    assert any("--url" in sentence for sentence in urls.missing(record))


def test_a_key_is_sent_and_is_in_no_record(httpserver: HTTPServer, tmp_path: Path) -> None:
    def asked(request: Request) -> Response:
        right = request.headers.get("Authorization") == f"Bearer {KEY}"
        return Response(json.dumps(MODELS) if right else "{}", status=200 if right else 401)

    httpserver.expect_request("/v1/models").respond_with_handler(asked)
    httpserver.expect_request("/version").respond_with_json({})
    url = httpserver.url_for("/")
    with pytest.raises(ConfigurationError, match="give it with --api-key-file FILE"):
        adopt(tmp_path, engines=(url,))
    file = tmp_path / "key"
    file.write_text(f"{KEY}\n")
    record = adopt(tmp_path, engines=(url,), api_key_file=file)
    assert KEY not in record.model_dump_json()
    assert Stack(record).engine.client.headers["Authorization"] == f"Bearer {KEY}"
    file.write_text("another-key\n")
    with pytest.raises(ConfigurationError, match="is refused"):
        adopt(tmp_path, engines=(url,), api_key_file=file)


@pytest.mark.parametrize("text", ["", "two words", "a\nb\n"])
def test_a_file_that_holds_no_key(tmp_path: Path, text: str) -> None:
    file = tmp_path / "key"
    file.write_text(text)
    with pytest.raises(ConfigurationError, match="only the key"):
        adopt(tmp_path, engines=("http://127.0.0.1:1",), api_key_file=file)


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (200, "<!doctype html><html><body>Welcome</body></html>", "a web page instead of a list of models"),
        (502, "<html>502 Bad Gateway</html>", "a web page"),
        (404, '{"detail":"Not Found"}', "HTTP 404"),
        (503, "no healthy upstream", "HTTP 503: check that an engine behind it is ready"),
        (429, '{"error": "slow down"}', "HTTP 429: check that an engine behind it is ready"),
        (200, '{"data": 3}', "instead of a list"),
        (200, "[" * 100_000, "instead of a list"),
        (200, '{"data": []}', "lists no model"),
        (200, '{"data": [{"id": null}]}', "instead of a list of models"),
        (200, '{"data": [{"id": "m"}, {"id": ""}]}', "instead of a list of models"),
        (200, '{"data": ["m"]}', "instead of a list of models"),
        (200, '{"data": [{"id": "m\\ud83d"}]}', "instead of a list of models"),
    ],
)
def test_what_is_no_api(httpserver: HTTPServer, tmp_path: Path, status: int, body: str, says: str) -> None:
    httpserver.expect_request("/v1/models").respond_with_data(body, status=status)
    with pytest.raises(ConfigurationError, match=says):
        adopt(tmp_path, engines=(httpserver.url_for("/"),))


def test_redirects_without_an_end(httpserver: HTTPServer, tmp_path: Path) -> None:
    url = httpserver.url_for("/v1/models")
    httpserver.expect_request("/v1/models").respond_with_response(Response(status=302, headers={"Location": url}))
    with pytest.raises(ConfigurationError, match="redirects too often"):
        adopt(tmp_path, engines=(httpserver.url_for("/"),))


def test_engines_of_other_models(httpserver: HTTPServer, tmp_path: Path) -> None:
    first = serve(httpserver, "/a")
    second = serve(httpserver, "/b", {"data": [{"id": "qwen"}]})
    record = adopt(tmp_path, engines=(first, second))
    assert (record.model, [one.url for one in record.engines]) == ("mistral", [first])
    (note,) = record.ignored
    assert note.endswith("is not judged: it serves qwen; choose it with --model qwen")
    with pytest.raises(ConfigurationError, match=f"engines match this name; choose one of .*; {re.escape(note)}"):
        record.judge(note.split()[1])
    chosen = urls.adopt(urls.Endpoints(engines=(first, second)), folder=tmp_path, model="qwen")
    assert (chosen.model, [one.url for one in chosen.engines]) == ("qwen", [second])
    routed = urls.adopt(urls.Endpoints(routers=(first, second)), folder=tmp_path, model="qwen")
    assert [one.url for one in routed.routers] == [second]
    with pytest.raises(ConfigurationError, match="--model x: no URL serves it; they serve mistral, qwen: name one"):
        urls.adopt(urls.Endpoints(engines=(first, second)), folder=tmp_path, model="x")


def test_logs_go_to_engines_then_to_cache_servers(httpserver: HTTPServer, tmp_path: Path) -> None:
    base = serve(httpserver)
    logs = []
    for name in ("engine.log", "cache.log"):
        logs.append(tmp_path / name)
        logs[-1].write_text("a line\n")
    record = adopt(tmp_path, engines=(base,), cache_servers=(base,), logs=tuple(logs))
    assert [server.log for server in record.servers] == logs
    assert record.engines[0].cache_server == "cache"
    with pytest.raises(ConfigurationError, match="3 logs for 1 engines"):
        adopt(tmp_path, engines=(base,), cache_servers=(base,), logs=(*logs, logs[0]))
    with pytest.raises(ConfigurationError, match="cannot be read"):
        adopt(tmp_path, engines=(base,), logs=(tmp_path / "none.log",))


def test_a_version_behind_a_login_is_not_known(httpserver: HTTPServer, tmp_path: Path) -> None:
    httpserver.expect_request("/v1/models").respond_with_json(MODELS)
    httpserver.expect_request("/version").respond_with_response(
        Response(status=302, headers={"Location": "https://login.example/"})
    )
    assert adopt(tmp_path, engines=(httpserver.url_for("/"),)).versions == {}


@pytest.mark.parametrize("option", ["engines", "routers", "cache_servers"])
@pytest.mark.parametrize("ending", ["", "/", "/v1"])
def test_a_url_that_is_given_twice_is_refused(httpserver: HTTPServer, tmp_path: Path, option: str, ending: str) -> None:
    base = serve(httpserver)
    httpserver.expect_request("/v1/metrics").respond_with_data("a 1\n")
    given = {"engines": (base,), option: (base, base.replace("http://", "HTTP://") + ending)}
    with pytest.raises(ConfigurationError, match=f"refers to {base} twice: give the URL of each server once"):
        adopt(tmp_path, **given)


def test_engines_of_different_paths_have_different_names(httpserver: HTTPServer, tmp_path: Path) -> None:
    bases = tuple(serve(httpserver, path) for path in ("/a/b", "/a-b", "/a-b-2", "/a/b-2"))
    record = adopt(tmp_path, engines=bases, routers=bases)
    for servers in (record.engines, record.routers):
        assert len({server.name for server in servers}) == 4
        assert servers[0].name.endswith("-a-b")


@pytest.mark.parametrize(
    ("body", "fits"),
    [
        ("<!doctype html><html>login</html>", False),
        ('{"detail": "x"}', False),
        ("Please log in\n", False),
        ("", True),
        ("\n# HELP a b\n", True),
        ('lmcache:hits{a="b c"} 1\n', True),
    ],
)
def test_a_cache_server_answers_metrics(httpserver: HTTPServer, tmp_path: Path, body: str, fits: bool) -> None:
    httpserver.expect_request("/cache/metrics").respond_with_data(body)
    given = {"engines": (serve(httpserver),), "cache_servers": (httpserver.url_for("/cache"),)}
    if fits:
        assert adopt(tmp_path, **given).cache_servers[0].url == given["cache_servers"][0]
        return
    with pytest.raises(
        ConfigurationError, match="something else than metrics: give the HTTP address of LMCache's server"
    ):
        adopt(tmp_path, **given)
