"""The rights that the documented role grants."""

from __future__ import annotations

from pathlib import Path

import pytest

from fixtures.provide.release import rights

pytest.importorskip("kubernetes")


def test_the_rights_are_those_of_the_documented_role() -> None:
    import yaml

    documents = list(yaml.safe_load_all((Path(__file__).parents[1] / "docs/rbac.yaml").read_text()))
    granted: dict[tuple[bool, str, str], set[str]] = {}
    for one in documents:
        if one["kind"] in {"ClusterRole", "Role"}:
            for rule in one["rules"]:
                for group in rule["apiGroups"]:
                    for resource in rule["resources"]:
                        granted.setdefault((one["kind"] == "ClusterRole", group, resource), set()).update(rule["verbs"])
    for right in rights.RIGHTS:
        lacking = set(right.verbs) - granted.get((True, right.group, right.resource), set())
        if not right.everywhere:
            lacking -= granted.get((False, right.group, right.resource), set())
        assert not lacking, f"docs/rbac.yaml does not grant {sorted(lacking)} on {right.resource}"
