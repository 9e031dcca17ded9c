"""Bad input: whatever a values file holds, it is read or refused in one sentence, and soon."""

from __future__ import annotations

import contextlib
import functools
import json
import random
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fixtures.core.errors import ConfigurationError
from fixtures.provide.values.ignored import ignored
from fixtures.provide.values.keys import ROWS
from fixtures.provide.values.loading import load_values, values_of
from fixtures.provide.values.render import render_engine, secrets
from fixtures.provide.values.tiers import cache_servers
from fixtures.provide.values.yaml import digest, load_all, read_yaml
from tests.fuzzing import INPUTS

if TYPE_CHECKING:
    from fixtures.provide.values.sections import Values

GOOD = (Path(__file__).parents[1] / "configs" / "embedded" / "values.yaml").read_text(encoding="utf-8")

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)
)
MERGES = "a0: &a0 {k: v}\n" + "".join(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}]}}\n" for n in range(1, 12))
FILES = [
    (b"a: " + b"x" * 5_000_000, "is larger than 1 MiB"),
    (b"servingEngineSpec:\n" + b"  key: 1\n" * 400_000, "is larger than 1 MiB"),
    (b"".join(b"key%d: [1, 2]\n" % n for n in range(60_000)), "contains more than 50000 values"),
    (BOMB.encode(), "after expansion of its aliases (*name)"),
    (MERGES.encode(), "after expansion of its aliases (*name)"),
    (b"a: &a [*a]\n", "contains an anchor that refers to itself"),
    (b"a: &a {b: *a}\n", "contains an anchor that refers to itself"),
    (b"- a\n- b\n", "contains a list, not a mapping"),
    (b"just text", "contains the text 'just text', not a mapping"),
    (b"a:\n\t- b\n", "found character that cannot start any token"),
    ("a: ä".encode("latin-1"), "cannot be read"),
    ("a: b\n".encode("utf-16"), "cannot be read"),
    (b"\x00\x01\x02", "is not YAML"),
    (b"", "is empty"),
    (b"# only words\n", "is empty"),
    (b"---\na: 1\n---\nb: 2\n", "but found another document"),
    (b"a: " + b"[" * 100_000, "is nested more than 100 levels deep"),
    (b"- " * 300_000 + b"a", "is nested more than 100 levels deep"),
    (b"a: " + b"[" * 500 + b"]" * 500, "is nested more than 100 levels deep"),
    (b"a: !!python/object/apply:os.system [ls]\n", "could not determine a constructor"),
    (b"a: !!set {b}\n", "could not determine a constructor"),
    (b"a: !!binary aGVsbG8=\n", "could not determine a constructor"),
    (b"a: !!timestamp 2001-01-01\n", "could not determine a constructor"),
    (b"a: !!int abc\n", "'abc' is not a number"),
    (b"a: !!float [1]\n", "expected a scalar node"),
    (b"a: !!bool [1]\n", "expected a scalar node"),
    (b"a: !!map [1]\n", "expected a mapping here"),
    (b"? [a, b]\n: 1\n", "a key is a list or a mapping, write a text"),
    (b"<<: 5\n", "expected a mapping or list of mappings for merging"),
    (b"a: *none\n", "found undefined alias"),
    (b"a: .inf\n", "Helm takes no infinite number"),
    (b"a: 1" + b"0" * 6000 + b"\n", "Helm takes no infinite number"),
]


@pytest.mark.parametrize(("content", "sentence"), FILES, ids=[sentence[:24] for _, sentence in FILES])
def test_bad_input_is_one_sentence_within_two_seconds(tmp_path: Path, content: Any, sentence: str) -> None:
    path = tmp_path / "values.yaml"
    path.write_bytes(content)
    begin = time.process_time()
    with pytest.raises(ConfigurationError) as error:
        load_values(path)
    assert time.process_time() - begin < 2
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize("place", ["/dev/null", "/dev/zero", "."])
def test_what_is_no_file_is_refused(place: Any) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_values(Path(place))


def test_a_file_of_many_aliases_within_the_limit_is_read(tmp_path: Path) -> None:
    path = tmp_path / "values.yaml"
    path.write_text("\ufeffa: &a [1, 2]\nb: [*a, *a]\nc: {<<: {d: 1}, e: 2}\n", encoding="utf-8")
    assert read_yaml(path) == {"a": [1, 2], "b": [[1, 2], [1, 2]], "c": {"d": 1, "e": 2}}


def test_every_document_of_a_text_is_read() -> None:
    assert load_all("a: 1\n---\nb: 010\n") == [{"a": 1}, {"b": 8}]


# ---- fuzzing

NAMES = sorted({part for row in ROWS for part in row.split()[0].split("/") if part.isidentifier()})
SCALARS = (
    None,
    True,
    False,
    0,
    1,
    -7,
    10**30,
    0.5,
    "",
    "a",
    "My_Model.1",
    "20Gi",
    "{{ .Release.Name }}",
    "a: [",
    "1e3",
)
TOP = ("servingEngineSpec", "cacheserverSpec", "routerSpec", "extraObjects", "sharedPvcStorage", "global", "x-a", "zzz")
IN_ENGINES = ("labels", "env", "configs", "vllmApiKey", "containerPort", "startupProbe", "enableEngine", "strategy")
IN_MODEL = (
    *("vllmConfig", "lmcacheConfig", "env", "requestCPU", "requestMemory", "resources", "keda", "raySpec", "hf_token"),
    *("replicaCount", "chatTemplate", "enabled", "limitMemory", "zzz"),
)
SIGNS = "ab:- \n\t[]{}&*!|>'\"#%@`,?<0.1e~\u00e4\x00"
AT_ONCE = 25
"""Inputs that are made of one seed: so a million take minutes, and a failure is repeated from its seed."""


class Maker:
    """Makes inputs of a seed."""

    def __init__(self, seed: int) -> None:
        self.of = random.Random(seed)

    def tree(self, depth: int = 0) -> object:
        kind = self.of.random() if depth < 4 else 0
        if kind < 0.5:
            return self.of.choice([*SCALARS, self.of.choice(NAMES)])
        if kind < 0.65:
            return [self.tree(depth + 1) for _ in range(self.of.randrange(4))]
        return {
            self.of.choice([*NAMES, "zzz", "", "a/b", "1"]): self.tree(depth + 1) for _ in range(self.of.randrange(5))
        }

    def some(self, names: tuple[str, ...]) -> dict[str, object]:
        return {name: self.tree(1) for name in names if self.of.random() < 0.3}

    def values(self) -> dict[str, object]:
        models = []
        for _ in range(self.of.randrange(3)):
            good = {
                "name": "m",
                "repository": "r",
                "tag": "t",
                "modelURL": "u",
                "requestCPU": 1,
                "requestMemory": "1Gi",
            }
            models.append(good | self.some(IN_MODEL))
        engines = {"modelSpec": models, **self.some(IN_ENGINES)}
        return {"servingEngineSpec": engines, **self.some(TOP)}

    def text(self, longest: int = 60) -> str:
        return "".join(self.of.choice(SIGNS) for _ in range(self.of.randrange(longest)))

    def assignment(self) -> str:
        return "".join(
            self.of.choice(["a", ".", "[0]", "[", "]", "=", ",", "{", "}", "\\", self.of.choice(NAMES)])
            for _ in range(8)
        )


def everything(values: Values) -> None:
    """All that is read from values, each refused by itself."""
    for number in range(len(values.serving_engine_spec.model_spec)):
        with contextlib.suppress(ConfigurationError):
            render_engine(values, number)
    with contextlib.suppress(ConfigurationError):
        secrets(values)
    with contextlib.suppress(ConfigurationError):
        cache_servers(values)
    ignored(values)
    digest(values.data)


@pytest.mark.long
@pytest.mark.fuzz
@pytest.mark.timeout(0)
@settings(max_examples=max(1, INPUTS // (5 * AT_ONCE)), deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**63))
def test_whatever_is_given_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, seed: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.yaml"
    maker = Maker(seed)
    for _ in range(AT_ONCE):
        data = maker.values()
        path.write_text(json.dumps(data), encoding="utf-8")
        for read in (
            functools.partial(load_values, path),
            functools.partial(load_values, path, overlays=(path,), sets=[maker.assignment()]),
            functools.partial(values_of, data),
        ):
            with contextlib.suppress(ConfigurationError):
                everything(read())
        for content in (maker.text(), _damaged(maker)):
            path.write_text(content, encoding="utf-8")
            with contextlib.suppress(ConfigurationError):
                everything(load_values(path))


def _damaged(maker: Maker) -> str:
    at, cut = maker.of.randrange(len(GOOD)), maker.of.randrange(20)
    return GOOD[:at] + maker.text(6) + GOOD[at + cut :]
