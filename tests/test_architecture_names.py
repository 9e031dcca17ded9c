"""One name for one thing, and no question about the kind of stack outside of what knows it."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.modules import MODULES

KINDS = {"process", "chart", "attach"}
OF_A_KIND = r"\b(Process|Release|Attach)Provider\b|\b(Host|Pod)Access\b|\bReleaseUnderTest\b"
NAMED_AFTER_ANOTHER = ("tests/fakes/", "lab/catalogue/", "lab/hooks/seeded/")
"""A fake, or a fault, is in a file with the name of what it fakes, or of what is wrong in it."""
KNOW_THE_KIND = ("fixtures/provide/", "fixtures/core/record.py", "fixtures/subject/host_access.py")
"""The providers, the record that they write, and the implementation of `Access` that is not theirs."""


def test_names_of_files_stand_once() -> None:
    """A file is found at the first guess: each has a name of its own."""
    names = [Path(name).stem for name in MODULES if not name.startswith(NAMED_AFTER_ANOTHER)]
    assert {name for name in names if names.count(name) > 1} == {"__init__", "__main__"}


def test_names_of_classes_and_functions_stand_once() -> None:
    """A class has a name of its own; so has a function, unless others call it with the name of its module.

    ``Subject`` is what tests run on, and the name of a part of the report in its published schema.
    """
    trees = {name: ast.parse(path.read_text()) for name, path in MODULES.items() if name.startswith("fixtures/")}
    defined = [
        (Path(name).stem, node.name, type(node))
        for name, tree in trees.items()
        for node in tree.body
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith(("_", "pytest_"))
    ]
    imported = {
        (str(node.module).rpartition(".")[2], alias.name)
        for tree in trees.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.level
        for alias in node.names
    }
    alone = [name for module, name, kind in defined if kind is ast.ClassDef or (module, name) in imported]
    assert {name for name, count in Counter(alone).items() if count > 1} == {"Subject"}


def test_only_the_providers_know_which_kind_of_stack_it_is() -> None:
    """Everything else asks a provider, an `Access` or a property of the record, or looks up a word for the report."""
    asked = [
        f"{name}:{line}: {text}"
        for name, path in MODULES.items()
        if name.startswith(("fixtures/", "suite/")) and not name.startswith(KNOW_THE_KIND)
        for line, text in questions_of_kind(path.read_text(), of_log_lines=name.startswith("fixtures/evidence/logs/"))
    ]
    assert not asked


@pytest.mark.parametrize(
    "question",
    [
        'record.kind == "process"',
        'record.kind in ("chart", "attach")',
        "server.process is None",
        "self.server.pod",
        "stack.record.release is not None",
        "bool(record.release)",
        "isinstance(run.provider, AttachProvider)",
        "isinstance(stack.access, PodAccess)",
        "type(provider) is ReleaseProvider",
        "words[record.kind]",
    ],
)
def test_a_question_about_the_kind_of_stack_is_noticed(question: str) -> None:
    assert list(questions_of_kind(question))


def questions_of_kind(source: str, *, of_log_lines: bool = False) -> Iterator[tuple[int, str]]:
    """(line, text) of what depends on the kind of stack; ``of_log_lines``: a line of a log names a process, too."""
    tree = ast.parse(source)
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        text = ast.unparse(node) if isinstance(node, ast.Compare | ast.MatchValue | ast.Attribute | ast.Call) else ""
        found = False
        match node:
            case ast.Compare() | ast.MatchValue():
                found = any(isinstance(one, ast.Constant) and one.value in KINDS for one in ast.walk(node))
                found |= re.search(r"\btype\(", text) is not None and re.search(OF_A_KIND, text) is not None
            case ast.Attribute() if id(node) not in called:
                found = node.attr in {"process", "pod"} and not of_log_lines
                found |= re.search(r"\brecord\.(kind|release)$", text) is not None
            case ast.Call(func=ast.Name(id="isinstance")):
                found = re.search(OF_A_KIND, text) is not None
        if found and isinstance(node, ast.expr | ast.pattern):
            yield node.lineno, text


def test_nothing_asks_whether_there_is_an_access() -> None:
    """Processes of this machine and pods are two implementations of one `Access`."""
    asked = [
        f"{name}:{node.lineno}"
        for name, path in MODULES.items()
        if name.startswith("fixtures/")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Compare) and re.search(r"\baccess is (not )?None$", ast.unparse(node))
    ]
    assert not asked
