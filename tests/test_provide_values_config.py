"""Configurations under test: found by name or path, checked when loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fixtures.core.errors import ConfigurationError
from fixtures.provide.process.recipes import RECIPES
from fixtures.provide.values.config import PROFILES, Model, available, load_config
from fixtures.provide.values.render import render_engine
from fixtures.provide.values.router_command import router_of

CONFIGS = Path(__file__).parents[1] / "configs"
VALUES = "servingEngineSpec: {modelSpec: [{name: m, repository: r, tag: t, modelURL: u}]}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of one configuration called ``mine``."""
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "values.yaml").write_text(VALUES, encoding="utf-8")
    (mine / "expect.yaml").write_text("description: one\n", encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("name", available(CONFIGS))
def test_every_shipped_configuration_loads_and_renders(name: str) -> None:
    config = load_config(name, CONFIGS)
    assert config.name == name
    assert config.values_path == CONFIGS / name / "values.yaml"
    command = render_engine(config.values)
    assert command.connector or "--kv-offloading-size" in command.argv
    assert not command.duplicates, "Helm 4 refuses a variable that is given twice, and CFG-03 finds it"
    lower = {"disk", "remote", "shared-tier"} >= set(
        config.expect.profiles
    )  # beside the embedded default, for what that does not have
    assert lower or set(PROFILES) <= set(config.expect.profiles)
    assert config.describe().startswith(f"{name} (")
    assert "\n" not in config.describe()


def test_the_shipped_configurations() -> None:
    routed = ("gpu-two-engines", "router-kv", "router-prefix", "router-session", "two-engines")
    single = ("cpu-cluster", "cpu-offload", "embedded", "gpu-multi-process", "gpu-small")
    below = ("disk", "disk-in-process", "remote", "remote-in-process", "remote-lm", "shared")
    native = ("native-cpu", "native-offload")
    assert available(CONFIGS) == tuple(sorted(single + below + routed + native))
    assert load_config("embedded", CONFIGS).expect.device == "cpu"
    assert load_config("embedded", CONFIGS).expect.model.recipe == "tiny-mistral"
    assert load_config("cpu-offload", CONFIGS).expect.device == "cuda"
    assert load_config("cpu-offload", CONFIGS).expect.model.source == "as-values"


def test_values_can_be_laid_over_those_of_another_configuration() -> None:
    below, above = load_config("two-engines", CONFIGS), load_config("router-prefix", CONFIGS)
    assert above.files == (below.values_path.resolve(), CONFIGS / "router-prefix/values.yaml")
    assert router_of(below.values) != router_of(above.values)
    assert render_engine(below.values) == render_engine(above.values)


def test_an_extended_file_that_is_not_there_is_reported(folder: Path) -> None:
    (folder / "mine/expect.yaml").write_text("description: one\nextends: ../other/values.yaml\n")
    with pytest.raises(ConfigurationError, match=r"extends names '../other/values.yaml', which is not a file"):
        load_config("mine", folder)


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_can_be_asked_for(recipe: str) -> None:
    assert Model.model_validate({"recipe": recipe}).recipe == recipe


def test_a_configuration_has_a_name_a_folder_or_a_file(folder: Path) -> None:
    for door in ("mine", str(folder / "mine"), str(folder / "mine" / "values.yaml")):
        config = load_config(door, folder)
        assert (config.name, config.folder, config.expect.description) == ("mine", folder / "mine", "one")


def test_a_values_file_alone_has_defaults(folder: Path) -> None:
    path = folder / "other.yaml"
    path.write_text(VALUES, encoding="utf-8")
    config = load_config(str(path), folder)
    assert (config.name, config.expect.device, config.expect.model.source) == ("other", "any", "as-values")
    assert set(PROFILES) <= set(config.expect.profiles)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("mime", "there is no configuration 'mime' (did you mean mine?); known names: mine; or give the path"),
        ("zzz", "there is no configuration 'zzz'; known names: mine; or give the path of a values file."),
        ("no/such.yaml", "there is no configuration 'no/such.yaml'"),
    ],
)
def test_an_unknown_name_lists_those_that_exist(folder: Path, name: str, sentence: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        load_config(name, folder)
    assert sentence in str(error.value)


def test_no_configuration_at_all(tmp_path: Path) -> None:
    assert available(tmp_path / "none") == ()
    with pytest.raises(ConfigurationError, match="this folder contains no configurations"):
        load_config("embedded", tmp_path)


@pytest.mark.parametrize("missing", ["values.yaml", "expect.yaml"])
def test_a_folder_needs_both_files(folder: Path, missing: Any) -> None:
    (folder / "mine" / missing).unlink()
    with pytest.raises(ConfigurationError, match=f"contains no {missing}; add one"):
        load_config(str(folder / "mine"), folder)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "expect.yaml is empty"),
        ("device: cpu\n", "expect.yaml: description is missing; add it."),
        (
            "description: a\ndevise: cpu\n",
            "expect.yaml: devise is not a known key (did you mean device?); correct it, or remove it.",
        ),
        ("description: a\nzzz: cpu\n", "expect.yaml: zzz is not a known key; remove it."),
        ("description: a\ndevice: gpu\n", "expect.yaml: device holds the text 'gpu'; write 'cpu', 'cuda' or 'any'."),
        (
            "description: a\nmodel: {}\n",
            "expect.yaml: model holds a mapping: give exactly one of recipe and source",
        ),
        (
            "description: a\nmodel: {recipe: llama}\n",
            "expect.yaml: model.recipe holds the text 'llama'; write 'tiny-mistral', 'tiny-llama',",
        ),
        (
            "description: a\nprofiles: [core, apis]\n",
            "expect.yaml: profiles[1] holds the text 'apis'; write 'core', 'api',",
        ),
        ("description: a\nprofiles: []\n", "expect.yaml: profiles holds a list"),
    ],
)
def test_a_wrong_expectation_is_one_sentence_with_the_remedy(folder: Path, text: str, sentence: str) -> None:
    (folder / "mine" / "expect.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError) as error:
        load_config("mine", folder)
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)
