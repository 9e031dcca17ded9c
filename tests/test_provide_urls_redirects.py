"""Where a redirect may lead, and which key goes there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Response

from fixtures.core.errors import ConfigurationError
from fixtures.provide import url_probe
from tests.url_servers import KEY, MODELS, adopt, serve

if TYPE_CHECKING:
    from pathlib import Path


def lead(server: HTTPServer, path: str, location: str) -> str:
    server.expect_request(f"{path}/v1/models").respond_with_response(
        Response(status=302, headers={"Location": location})
    )
    return server.url_for(path)


def test_the_key_goes_to_no_host_that_a_redirect_names(httpserver: HTTPServer, tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(KEY)
    with HTTPServer(host="127.0.0.1") as other:
        there = serve(other, "/ok")
        here = lead(httpserver, "/cross", f"{there}/v1/models?token=t")
        with pytest.raises(ConfigurationError, match=r"redirects to another host, .* give that URL itself") as caught:
            adopt(tmp_path, engines=(here,), api_key_file=file)
        assert here in str(caught.value)
        assert f"{there}:" in str(caught.value)
        assert "token" not in str(caught.value)
        assert not other.log


@pytest.mark.parametrize(
    ("location", "leads_to"),
    [
        ("https://h.example/v1/models", "https://h.example/v1/models"),
        ("https://h.example:8000/v1/models", "https://h.example:8000/v1/models"),
        ("//H.example:8000/x", "http://H.example:8000/x"),
        ("/x#part", "http://h.example:8000/x"),
        ("https://h.example:8443/x", None),
        ("http://h.example/x", None),
        ("https://other.example/x", None),
        ("http://user:pw@h.example:8000/x", None),
        ("ftp://h.example:8000/x", None),
        ("http://[::1", None),
    ],
)
def test_where_a_redirect_may_lead(location: str, leads_to: str | None) -> None:
    if leads_to is not None:
        assert url_probe._redirected("http://h.example:8000/v1/models", location) == leads_to
        return
    with pytest.raises(ConfigurationError, match="redirects to") as caught:
        url_probe._redirected("http://h.example:8000/v1/models", location)
    assert "pw" not in str(caught.value)


def test_https_is_not_left_again() -> None:
    with pytest.raises(ConfigurationError, match="another host"):
        url_probe._redirected("https://h.example/v1/models", "http://h.example/v1/models")


@pytest.mark.parametrize("ending", ["/", "?x=1", "/?x=1#here"])
def test_the_base_is_taken_rightly_from_a_redirect(httpserver: HTTPServer, tmp_path: Path, ending: str) -> None:
    base = serve(httpserver, "/new")
    httpserver.expect_request("/new/v1/models/").respond_with_json(MODELS)
    here = lead(httpserver, "/old", f"/new/v1/models{ending}")
    assert adopt(tmp_path, engines=(here,)).engines[0].url == base


def test_a_redirect_to_another_path_has_no_base(httpserver: HTTPServer, tmp_path: Path) -> None:
    httpserver.expect_request("/list").respond_with_json(MODELS)
    with pytest.raises(ConfigurationError, match="/list is the target of a redirect, but does not end in /v1/models"):
        adopt(tmp_path, engines=(lead(httpserver, "/old", "/list"),))
