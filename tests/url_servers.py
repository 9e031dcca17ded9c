"""Servers behind URLs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fixtures.provide import urls
from fixtures.provide.urls import Endpoints

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_httpserver import HTTPServer


MODELS = {"object": "list", "data": [{"id": "mistral", "object": "model", "max_model_len": 8192}]}


KEY = "a-key-of-this-test"


def serve(server: HTTPServer, prefix: str = "", models: Any = MODELS) -> str:
    server.expect_request(f"{prefix}/v1/models").respond_with_json(models)
    server.expect_request(f"{prefix}/version").respond_with_json({"version": "0.32.0"})
    server.expect_request(f"{prefix}/metrics").respond_with_data("vllm:num_requests_running 0\n")
    return server.url_for(prefix or "/").rstrip("/")


def adopt(tmp_path: Path, **given: Any) -> Any:
    return urls.adopt(Endpoints(**given), folder=tmp_path)
