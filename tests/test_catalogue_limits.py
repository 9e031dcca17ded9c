"""The numbers that decide a verdict are in one place; the sentences about a requirement take them from there."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from importlib import resources

import pytest
import yaml

from fixtures.catalogue import limits
from fixtures.catalogue.requirements import REQUIREMENTS, _with_numbers
from tests.modules import MODULES

NUMBER = re.compile(r"(?<![\w.-])(\d+(?:\.\d+)?) ?(%|ms)?(?![\w.]*\d)")
SCALE = {"%": 100.0, "ms": 1000.0}


def repeated(text: str, every: Iterable[limits.Limit]) -> set[float]:
    """The numbers of a text that are one of these limits."""
    said = {round(float(number) / SCALE.get(unit, 1.0), 9) for number, unit in NUMBER.findall(text)}
    return said & {round(float(one), 9) for one in every}


def test_no_row_repeats_the_number_of_a_limit() -> None:
    rows = yaml.safe_load((resources.files("fixtures.catalogue") / "requirements.yaml").read_text())
    found = {
        (row["id"], key): numbers
        for row in rows
        for key in ("title", "text", "how")
        if (numbers := repeated(row[key], REQUIREMENTS[row["id"]].limits))
    }
    assert found == {}, "write {NAME} of the limit, {NAME%} or {NAME:ms}"


def test_no_docstring_of_the_suite_repeats_the_number_of_a_limit() -> None:
    found = {
        node.name: numbers
        for name, path in MODULES.items()
        if name.startswith("suite/")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
        for ids in [re.findall(r"[A-Z]{3}-\d\d", " ".join(map(ast.unparse, node.decorator_list)))]
        if (
            numbers := repeated(ast.get_docstring(node) or "", (one for id_ in ids for one in REQUIREMENTS[id_].limits))
        )
    }
    assert found == {}, "leave it out: the page of the requirement and the report print it"


def test_a_sentence_prints_the_limits_of_its_row() -> None:
    names = ["STORE_SHARE", "STORE_FIXED_S", "EFFICIENCY"]
    text = "{EFFICIENCY}, {STORE_SHARE%} + {STORE_FIXED_S:ms}, {CONFIDENCE%}"
    shown = f"{float(limits.EFFICIENCY):g}, {limits.STORE_SHARE * 100:g} % + {limits.STORE_FIXED_S * 1000:g} ms, 95 %"
    assert _with_numbers(text, names) == shown
    with pytest.raises(LookupError, match=r"\{WORKING_SET\} is not one of its limits"):
        _with_numbers("{WORKING_SET} x", names)


@pytest.mark.parametrize(
    ("text", "found"), [("at most 0.25", {0.25}), ("25 % more", {0.25}), ("vLLM 0.25.1, 25 s", set())]
)
def test_a_repeated_number_is_noticed(text: str, found: set[float]) -> None:
    assert repeated(text, [limits.STORE_SHARE]) == found
