"""The keys of values against those of the chart, by version."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from fixtures.core.errors import ConfigurationError
from fixtures.provide.values.keys import NEWEST, ROWS, VERSIONS, of_version, rows, since
from tests import values_refused
from tests.values_refused import refusal, values

if TYPE_CHECKING:
    from collections.abc import Callable

    from fixtures.provide.values.sections import Values

    Load = Callable[..., Values]

load = values_refused.load


# ---- by version


@pytest.mark.parametrize(
    ("over", "legal", "illegal", "remedy"),
    [
        (values(cacheserverSpec={"repository": "r"}), "0.1.10", "0.1.11", "use cacheserverSpec.image.repository."),
        (values(cacheserverSpec={"tag": "t"}), "0.1.0", "0.1.12", "use cacheserverSpec.image.tag."),
        (
            values(cacheserverSpec={"image": {"repository": "r"}}),
            "0.1.11",
            "0.1.10",
            "remove it, or name another chart",
        ),
        (
            values(servingEngineSpec={"maxUnavailablePodDisruptionBudget": 1}),
            "0.0.2",
            "0.1.11",
            "use servingEngineSpec.modelSpec[*].pdb.maxUnavailable.",
        ),
        (values(servingEngineSpec={"env": []}), "0.1.10", "0.1.9", "it belongs under servingEngineSpec.modelSpec[*]."),
        (values(sharedStorage={"enabled": True}), "0.1.5", "0.1.6", "use sharedPvcStorage."),
    ],
)
def test_a_key_is_legal_for_its_versions(load: Load, over: Any, legal: Any, illegal: Any, remedy: str) -> None:
    assert load(over, version=legal).warnings == ()
    message = refusal(load, over, version=illegal)
    assert f"but chart {illegal} does not read it; {remedy}" in message


def test_without_a_version_an_older_key_passes_with_a_warning(load: Load) -> None:
    found = load(
        values(cacheserverSpec={"repository": "r"}, servingEngineSpec={"maxUnavailablePodDisruptionBudget": 1})
    )
    first, second = sorted(found.warnings)
    assert first.endswith(
        f"cacheserverSpec.repository is a key of chart 0.1.0 to 0.1.10, but {NEWEST} does not read it; use "
        "cacheserverSpec.image.repository"
    )
    assert "servingEngineSpec.maxUnavailablePodDisruptionBudget is a key of chart 0.0.2 to 0.1.10" in second
    assert load(values()).warnings == ()


def test_a_mistake_below_an_older_key_is_refused(load: Load) -> None:
    assert "sharedStorage.nfs.serverr is not a key" in refusal(load, values(sharedStorage={"nfs": {"serverr": "x"}}))


def test_an_unknown_version_names_the_known_ones() -> None:
    with pytest.raises(ConfigurationError, match=f"give a version from 0.0.2 to {NEWEST}, or the chart itself"):
        of_version("9.9.9")
    assert of_version("v0.1.3").version == of_version("vllm-stack-0.1.3").version == "0.1.3"


def test_the_rows_of_the_table_are_those_that_its_versions_print() -> None:
    assert rows({version: of_version(version).top for version in VERSIONS}) == "\n".join(ROWS)


def test_the_table_is_in_order() -> None:
    rows = ROWS
    assert rows == sorted(rows)
    assert all(versions for versions in since().values())
    assert NEWEST in VERSIONS
