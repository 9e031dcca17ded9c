"""The tiny model's recipe and making, and the checks of a model that the user brings."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fixtures.core.errors import ConfigurationError, StackError
from fixtures.core.files import cache_dir
from fixtures.core.model_geometry import RECIPE
from fixtures.evidence.vllm_options import parse_options
from fixtures.provide.kv_size import kv_bytes_per_token
from fixtures.provide.process.completeness import incompleteness, load
from fixtures.provide.process.environment import CPU_PAIR, EngineEnv
from fixtures.provide.process.model import check_model, ensure_model
from fixtures.provide.process.probe import adopt
from fixtures.provide.process.recipes import RECIPES, Recipe

CACHE = cache_dir()
"""Of the user: the engine's environment is there."""


@pytest.fixture(scope="module")
def env() -> EngineEnv:
    given = os.environ.get("KV_OFFLOAD_ENGINE_PYTHON")
    if given:
        return adopt(Path(given))
    folder = CACHE / CPU_PAIR.folder
    if incompleteness(folder, CPU_PAIR) is not None:
        pytest.skip("no engine environment: set KV_OFFLOAD_ENGINE_PYTHON or let the suite make one first")
    return load(folder)


@pytest.mark.parametrize(
    ("name", "kv_bytes"),
    [
        ("tiny-mistral", 4096),
        ("tiny-llama", 1024),
        ("tiny-qwen", 2048),
        ("tiny-mixtral", 2048),
        ("tiny-gemma", 2048),
        ("tiny-deepseek", 4 * 576 * 2),
        ("tiny-granite-hybrid", None),
        ("mistral-7b", 128 * 1024),
    ],
)
def test_the_kv_of_a_token(name: str, kv_bytes: int | None) -> None:
    assert kv_bytes_per_token(RECIPES[name].config, parse_options(())) == kv_bytes


def test_every_recipe_is_another_model() -> None:
    recipe = RECIPES["tiny-mistral"]
    others = [replace(recipe, seed=1), replace(recipe, config={**recipe.config, "num_key_value_heads": 4})]
    assert len({one.hash for one in (*RECIPES.values(), *others)}) == len(RECIPES) + 2


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_a_recipe_and_its_tokenizer_agree_on_special_tokens(recipe: Recipe) -> None:
    if recipe.tokenizer is not None:
        begin, end = recipe.config["bos_token_id"], recipe.config["eos_token_id"]
        assert recipe.tokenizer.special[end] == recipe.tokenizer.end
        assert (begin is None) == (recipe.tokenizer.begin is None)
        assert begin is None or recipe.tokenizer.special[begin] == recipe.tokenizer.begin


def a_model(folder: Path) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "tokenizer.json").write_text("{}")
    return folder


def test_a_whole_model_passes(tmp_path: Path) -> None:
    check_model(a_model(tmp_path / "m"))


@pytest.mark.parametrize(
    ("absent", "message"),
    [
        ("config.json", "has no config.json: give"),
        ("model.safetensors", "has no weights .* download"),
        ("tokenizer.json", "has no tokenizer .* copy"),
    ],
)
def test_each_missing_file_is_named_with_its_remedy(tmp_path: Path, absent: str, message: str) -> None:
    folder = a_model(tmp_path / "m")
    (folder / absent).unlink()
    with pytest.raises(ConfigurationError, match=message):
        check_model(folder)


def test_all_that_is_missing_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"config\.json.*weights.*tokenizer"):
        check_model(tmp_path)
    with pytest.raises(ConfigurationError, match="no model folder"):
        check_model(tmp_path / "absent")


def test_a_model_of_which_only_a_part_was_downloaded(tmp_path: Path) -> None:
    folder = a_model(tmp_path / "m")
    shards = {"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(shards))
    with pytest.raises(ConfigurationError, match=r"lacks 1 of 2 weight files \(model-2.safetensors\)"):
        check_model(folder)


def test_lfs_pointers_are_not_weights(tmp_path: Path) -> None:
    folder = a_model(tmp_path / "m")
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(ConfigurationError, match="git lfs pull"):
        check_model(folder)


def weights_sha256(folder: Path) -> str:
    return json.loads((folder / RECIPE).read_text())["sha256"]["model.safetensors"]


@pytest.mark.long  # the engine's own torch is imported three times
def test_the_model_is_the_same_bytes_on_every_making_and_made_again_when_a_file_is_missing_or_changed(
    tmp_path: Path, env: Any
) -> None:
    lines: list[str] = []
    folder = ensure_model(RECIPES["tiny-mistral"], env, tmp_path, lines.append)
    weights = folder / "model.safetensors"
    checksum, made = weights_sha256(folder), weights.read_bytes()
    assert len(made) == pytest.approx(2 * 19_400_960, rel=0.001)
    check_model(folder)
    assert ensure_model(RECIPES["tiny-mistral"], env, tmp_path, lines.append) == folder
    assert len(lines) == 1

    (folder / "tokenizer.model.v3").unlink()
    ensure_model(RECIPES["tiny-mistral"], env, tmp_path, lines.append)
    assert (weights_sha256(folder), weights.read_bytes()) == (checksum, made)
    with weights.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(bytes([made[-1] ^ 0xFF]))
    ensure_model(RECIPES["tiny-mistral"], env, tmp_path, lines.append)
    assert (weights_sha256(folder), weights.read_bytes()) == (checksum, made)
    assert sum("missing or changed" in line for line in lines) == 2
    check_model(folder)
    assert not [entry for entry in (tmp_path / "models").iterdir() if entry.is_dir() and entry != folder]


def test_an_interpreter_without_torch_is_an_error_that_names_what_is_needed(tmp_path: Path) -> None:
    env = EngineEnv(Path(sys.executable), "0", "0", "0", "cpu")
    with pytest.raises(StackError, match="needs torch, numpy, transformers"):
        ensure_model(RECIPES["tiny-mistral"], env, tmp_path, lambda _: None)
    assert not list((tmp_path / "models").glob("tiny-mistral-*/"))
