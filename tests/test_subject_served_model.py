"""The vocabulary of the model that an engine serves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from fixtures.instruments.prompts import Vocabulary
from fixtures.subject.stack import Stack
from tests.fakes import engine_server
from tests.fakes.engine_server import FakeServer, record

if TYPE_CHECKING:
    from pathlib import Path


engine = engine_server.engine


@pytest.mark.parametrize("size", [16, 300, 5000, 30999, 151936])
def test_the_vocabulary_is_found_by_asking(tmp_path: Path, engine: FakeServer, size: int) -> None:
    def only_known(payload: dict[str, Any]) -> None:
        known = max(payload["prompt"]) < size
        engine.answer = (200, {}) if known else (400, {"error": {"message": "Token id 9 is out of vocabulary"}})

    engine.on_post = only_known
    found = Stack(record(tmp_path, engine.url)).vocabulary
    assert 0 < found.first < found.end <= size
    assert found == Vocabulary.of_size(min(size, 31000) if size < 31000 else size)
    assert len(engine.posts) <= 17


def test_the_vocabulary_of_a_model_at_hand_is_read(tmp_path: Path, engine: FakeServer) -> None:
    (tmp_path / "config.json").write_text('{"text_config": {"vocab_size": 512, "bos_token_id": 3}}')
    found = Stack(record(tmp_path, engine.url, model_folder=tmp_path)).vocabulary
    assert (found.bos, found.first, found.end) == (3, 128, 496)
    assert engine.posts == []
