"""docs/architecture.md shows the packages as they import each other; modules and functions stay small.

``python -m tests.test_architecture`` generates the picture of the page again.
"""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys

import grimp
import pytest

from fixtures.plugin.markers import MARKERS
from tests.modules import FOLDERS, MODULES, ROOT

PAGE = ROOT / "docs" / "architecture.md"
PICTURE = re.compile(r"(<!-- begin: (.+) -->\n).*?(<!-- end: \2 -->)", re.DOTALL)
AT_THE_ROOT = {
    *(".dockerignore", ".gitignore", ".pre-commit-config.yaml", "conftest.py", "pyproject.toml", "tox.ini"),
    *("CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "README.md", "SECURITY.md"),
}
MOST_LINES = 350
MOST_LINES_OF_A_FUNCTION = 60
MOST_IMPORTS = 10
MOST_STATEMENTS = 3
"""Of a method of `Stack`."""
FEWEST_WORDS = 8
"""Of the explanation of a marker."""
FRONTS = {"fixtures.testing", "lab.catalogue"}
"""A list of what suite/ imports, and one of all faults; nothing else."""
WIDE = {
    "lab.power.of_load",
    "lab.power.samples",
    "tests.test_catalogue_requirements",
    "tests.test_provide_values_templates",
    "tests.test_configs",
}
"""They hold what several packages say of the same thing against each other, or repeat what several experiments measure."""


@functools.cache
def graph(*packages: str, at_run_time: bool = False) -> grimp.ImportGraph:
    """The imports of these packages, by default of fixtures/; those for types only included unless ``at_run_time``."""
    every = packages or ("fixtures",)
    return grimp.build_graph(*every, exclude_type_checking_imports=at_run_time, cache_dir=None)


def arrows() -> set[tuple[str, str]]:
    """(importing package, imported package) of fixtures/."""
    pairs = {
        (module.split(".")[1], imported.split(".")[1])
        for module in graph().modules
        for imported in graph().find_modules_directly_imported_by(module)
        if module.count(".") and imported.count(".")
    }
    return {(one, other) for one, other in pairs if one != other}


def picture() -> str:
    """A mermaid graph, without the arrows that a longer path implies."""
    pairs = arrows()
    uses = {one: {other for start, other in pairs if start == one} for one in {name for pair in pairs for name in pair}}
    lines = ["```mermaid", "flowchart TD"]
    for one, other in sorted(pairs):
        if not any(other in uses[between] for between in uses[one] - {other}):
            lines.append(f"    {one} --> {other}")
    return "\n".join([*lines, "```"]) + "\n"


def page() -> str:
    """docs/architecture.md with the picture as the imports are."""
    return PICTURE.sub(lambda found: found[1] + picture() + found[3], PAGE.read_text())


@functools.cache
def functions() -> dict[str, int]:
    """Lines of each function; the line it starts at tells apart those of one name."""
    return {
        f"{name}:{node.lineno}: {node.name}": (node.end_lineno or node.lineno) - node.lineno + 1
        for name, path in MODULES.items()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def test_picture_shows_the_imports() -> None:
    assert "fixtures.plugin" in graph().modules
    assert PAGE.read_text() == page(), "the picture is stale; run: python -m tests.test_architecture"
    assert "```mermaid" in PAGE.read_text()


def test_every_package_is_on_the_page() -> None:
    packages = {f"fixtures/{path.name}" for path in (ROOT / "fixtures").iterdir() if (path / "__init__.py").exists()}
    assert sorted(name for name in packages if f"`{name}`" not in PAGE.read_text()) == []


def test_modules_are_short() -> None:
    lines = {name: len(path.read_text().splitlines()) for name, path in MODULES.items()}
    long = {name for name, count in lines.items() if count > MOST_LINES}
    assert not long, f"more than {MOST_LINES} lines: split by subject, or shorten"


def test_types_of_the_standard_library_are_imported_like_the_rest_of_it() -> None:
    """Their import costs nothing: only what is of the project, or slow to import, is left to the type checker."""
    late = [
        f"{name}:{node.lineno}"
        for name, path in MODULES.items()
        if name.startswith(("fixtures/", "suite/")) and "/scripts/" not in name
        for block in ast.parse(path.read_text()).body
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        and not node.level
        and str(node.module).partition(".")[0] in sys.stdlib_module_names
    ]
    assert not late


def test_no_test_of_the_suite_calculates() -> None:
    """What is judged is a property of what was measured: a test compares it with what the requirement says."""
    calculating = {"abs", "divmod", "max", "min", "pow", "round", "sum"}
    found = [
        f"{name}:{node.lineno}: {ast.unparse(node)}"
        for name, path in MODULES.items()
        if name.startswith("suite/")
        for node in ast.walk(ast.parse(path.read_text()))
        if (isinstance(node, ast.BinOp) and not isinstance(node.op, ast.BitOr))
        or isinstance(node, ast.AugAssign)
        or (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in calculating)
        or (isinstance(node, ast.BoolOp) and any(is_number(one) for one in node.values))
    ]
    assert not found


def test_no_test_of_the_suite_has_a_threshold() -> None:
    """Thresholds are options, which a report lists; a test knows no number but none, one and the classes of HTTP."""
    known = {0, 1, 400, 500}
    found = [
        f"{name}:{node.lineno}: {ast.unparse(node)}"
        for name, path in MODULES.items()
        if name.startswith("suite/")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Compare) and not all(isinstance(one, ast.Eq | ast.NotEq) for one in node.ops)
        if any(
            isinstance(one, ast.Constant)
            and is_number(one)
            and (one.value not in known or isinstance(one.value, float))
            for one in ast.walk(node)
        )
    ]
    assert not found


def test_no_module_keeps_state() -> None:
    """A container that is empty at first, or a ``global``, is filled by what runs; caches of functions are not state."""
    empty = {"{}", "[]", "set()", "dict()", "list()"}
    found = [
        f"{name}: {ast.unparse(node)}"
        for name, path in MODULES.items()
        if name.startswith("fixtures/")
        for tree in [ast.parse(path.read_text())]
        for node in (*tree.body, *(one for one in ast.walk(tree) if isinstance(one, ast.Global)))
        if isinstance(node, ast.Global)
        or (
            isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None and ast.unparse(node.value) in empty
        )
    ]
    assert found == ["fixtures/core/redaction/known.py: KNOWN: Final[set[str]] = set()"]


def test_evidence_reads_and_writes_no_file() -> None:
    """It is given what was read; which modules it may not import is a contract of import-linter."""
    reading = {"open", "read_text", "read_bytes", "write_text", "write_bytes", "iterdir", "glob", "print", "sleep"}
    found = [
        f"{name}:{node.lineno}: {ast.unparse(node)}"
        for name, path in MODULES.items()
        if name.startswith("fixtures/evidence/")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", None)) in reading
    ]
    assert not found


def is_number(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, int | float) and not isinstance(node.value, bool)


def test_no_run_leaves_a_file_at_the_root() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if tracked.returncode:
        pytest.skip("no checkout of git")
    assert {name for name in tracked.stdout.splitlines() if "/" not in name} == AT_THE_ROOT


def test_functions_are_short() -> None:
    long = {name for name, count in functions().items() if count > MOST_LINES_OF_A_FUNCTION}
    assert not long, f"more than {MOST_LINES_OF_A_FUNCTION} lines: split"


def test_the_stack_is_a_thin_front() -> None:
    """Its methods hand on: what they do is in a module of its own subject."""
    (stack,) = [
        node
        for node in ast.parse(MODULES["fixtures/subject/stack.py"].read_text()).body
        if isinstance(node, ast.ClassDef)
    ]
    methods = [node for node in stack.body if isinstance(node, ast.FunctionDef)]
    assert {one.name for one in methods if sum(not is_text(part) for part in one.body) > MOST_STATEMENTS} == set()


def test_what_asserts_shows_the_line_of_the_test() -> None:
    """A failure is shown at the line of the test that calls it."""
    asserting = {
        f"{name}:{node.name}": ast.unparse(node.body[1])
        for name, path in MODULES.items()
        if name.startswith(("fixtures/", "suite/"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("assert_")
    }
    assert {name for name, first in asserting.items() if first != "__tracebackhide__ = True"} == set()
    assert "fixtures/experiments/control.py:assert_same" in asserting


def test_markers_explain_themselves() -> None:
    short = [one for one in MARKERS if len(one.partition(": ")[2].split()) < FEWEST_WORDS]
    assert short == [], "pytest --markers is where they are explained"


def is_text(node: ast.stmt) -> bool:
    """Whether a statement is a docstring."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def test_modules_import_few_others() -> None:
    many = {name for name in ours("fixtures", "lab") - FRONTS - WIDE if len(imported_by(name)) > MOST_IMPORTS}
    assert not many, f"more than {MOST_IMPORTS} modules imported: two subjects"


def test_the_suite_is_written_with_one_module() -> None:
    """``fixtures.testing`` lists what a test may use; types are imported from where they are."""
    imported = {one for name in ours("suite") for one in imported_by(name)}
    assert {one for one in imported if not one.startswith("suite")} == {"fixtures.testing"}


def test_tests_import_few_others() -> None:
    """What is tested and what it needs; ``fixtures.core``, which everything needs, does not count."""
    many = {
        name
        for name in ours("tests") - WIDE
        if sum(not one.startswith(("fixtures.core", "tests")) for one in imported_by(name)) > MOST_IMPORTS
    }
    assert not many, f"more than {MOST_IMPORTS} modules imported: two subjects"


def test_no_test_imports_another() -> None:
    """What several need is in a module of its own: a test is found and changed where it is."""
    found = {(name, one) for name in ours("tests") for one in imported_by(name) if one.startswith("tests.test_")}
    assert not found


def ours(*packages: str) -> set[str]:
    """Modules of these packages."""
    return {name for name in graph(*FOLDERS, at_run_time=True).modules if name.partition(".")[0] in packages}


def imported_by(name: str) -> set[str]:
    """Modules of the project that a module imports at run time."""
    return graph(*FOLDERS, at_run_time=True).find_modules_directly_imported_by(name)


if __name__ == "__main__":
    PAGE.write_text(page())
