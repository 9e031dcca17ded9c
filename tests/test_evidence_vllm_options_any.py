"""Files of options, connectors inside each other, and command lines that are none."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures.evidence import startup
from fixtures.evidence.connector import connector_of, lmcache_file, lmcache_settings
from fixtures.evidence.vllm_options import Options, parallel_of, parse_options, without_connector
from tests.command_lines import FLAG, START, V1, multi, read, verdict

SPELLINGS = (
    f"-tp -tp= --config /c.yaml bash -c serve - -- -. -x.y=1 --= ' [1] 2 {FLAG} {FLAG}. {FLAG}.=x {FLAG}.a.b+ "
    f"{FLAG}.kv_connector --kv-offloading-size --kv_offloading_backend"
)


WORDS = st.text(max_size=8) | st.sampled_from(["", V1, multi(V1), *SPELLINGS.split()])


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


NO_FILES = [
    *("a: 2027-02-30", "a: !!timestamp x", "a: !!bool x", "a: !!int ''", "? [a]\n: b", "a: &a [*a]", "a: \x00", BOMB),
    *("[" * 5000, "- " * 5000, "a: " + "{b: " * 5000, f"a: {'9' * 5000}", "a: b\n" * 20_000, "a: " + "x" * 300_000),
]


@pytest.mark.parametrize("content", NO_FILES, ids=range(len(NO_FILES)))
def test_a_file_that_cannot_be_read_is_unknown_at_once(content: str) -> None:
    began = time.process_time()
    with pytest.raises(ValueError, match=r"^(?:is not YAML|contains|is nested)"):
        lmcache_file(content)
    assert parse_options(["vllm", "serve", "--config", "f", "-tp", "2"], lambda _: content) == Options(
        (("-tp", "2"),), "f"
    )
    assert time.process_time() - began < 1.0


@pytest.mark.parametrize("content", ["hf-overrides: {a: 2024-01-01}", "hf-overrides: {2024-01-01: a}", "[a]", "x"])
def test_options_of_a_file_that_vllm_cannot_take_are_unknown(content: str) -> None:
    assert parse_options(["vllm", "serve", "--config", "f"], lambda _: content).unread == "f"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("- a\n- b\n", "contains a list, not a mapping"),
        ("just a text", "contains a str, not a mapping"),
        ("a: b: c", "is not YAML: mapping values are not allowed"),
        (BOMB, "contains more than 10000 values after expansion of its aliases"),
        ("[" * 5000, "is nested more than 50 levels deep"),
        ("x" * 5_000_000, "contains more than 262144 characters"),
    ],
)
def test_what_lmcache_could_not_read_is_reported(content: str, problem: str) -> None:
    with pytest.raises(ValueError, match=f"^{problem}"):
        lmcache_file(content)


@pytest.mark.parametrize("content", ["", "# nothing yet\n", "{}", "---\n"])
def test_an_empty_file_sets_nothing(content: str) -> None:
    assert lmcache_file(content) == {}


def test_a_file_may_use_anchors() -> None:
    assert lmcache_file("a: &a {b: 1}\nc: *a\nd: &d text\ne: *d") == {
        "a": {"b": 1},
        "c": {"b": 1},
        "d": "text",
        "e": "text",
    }


@pytest.mark.parametrize("depth", [10, 150, 320])
def test_connectors_inside_each_other(depth: int) -> None:
    one = V1
    for _ in range(depth):
        one = f'{{"kv_connector": "MultiConnector", "kv_connector_extra_config": {{"connectors": [{one}]}}}}'
    try:
        found = connector_of((FLAG, one))
    except ValueError:
        return
    assert found is not None
    assert [member.name for member in found.members] == ["LMCacheConnectorV1"]


def test_options_without_an_end() -> None:
    parse_options(["vllm", "serve", f"{FLAG}.{'a.' * 5000}", "1", f"{FLAG}.b", "[" * 50_000, f"{FLAG}.c", "9" * 5000])


@given(st.lists(WORDS, max_size=8))
@settings(max_examples=150, deadline=None)
def test_any_command_line_is_read(argv: list[str]) -> None:
    found = parse_options(argv, read)
    parallel_of(found)
    lmcache_settings(argv)
    without_connector(argv)
    try:
        connector = connector_of(found)
    except ValueError:
        return
    verdict(connector)
    assert connector is None or connector.cache_server is None or connector.cache_server[1] > 0


@given(st.text(max_size=300) | st.lists(st.sampled_from(START.split(" ")), max_size=40).map(" ".join))
@settings(max_examples=150, deadline=None)
def test_any_log_is_read(log: str) -> None:
    startup.read(log)
