"""Aborted requests: only those that were left without an answer count."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from fixtures.core.errors import NotJudged, SubjectFault
from fixtures.experiments.aborts import abort_requests
from fixtures.subject.stack import Stack
from tests.fakes import engine_server
from tests.fakes.engine_server import FakeServer, record

if TYPE_CHECKING:
    from pathlib import Path

    from fixtures.instruments.prompts import Prompts


engine = engine_server.engine
prompts = engine_server.prompts


def test_hanging_up_counts_those_that_were_left_without_an_answer(
    tmp_path: Path, engine: FakeServer, prompts: Prompts
) -> None:
    engine.on_post = lambda _: time.sleep(0.5)
    aborted = abort_requests(Stack(record(tmp_path, engine.url)), [prompts.of_length(20) for _ in range(4)], at_least=4)
    assert aborted == 4
    assert {payload["stream"] for payload in engine.posts} == {False, True}


def test_clients_that_are_refused_have_aborted_nothing(tmp_path: Path, engine: FakeServer, prompts: Prompts) -> None:
    stack = Stack(record(tmp_path, engine.url))
    engine.answer = (400, {"error": {"message": "no"}})
    asked = [prompts.of_length(20) for _ in range(4)]
    with pytest.raises(SubjectFault, match="got 400"):
        abort_requests(stack, asked)
    engine.answer = (200, {"id": "cmpl-1", "choices": [{"text": "a"}]})
    with pytest.raises(NotJudged, match=r"of 4 requests were aborted before they were answered"):
        abort_requests(stack, asked, at_least=4)
