"""Changes a line of the suite at random and looks whether the project's own tests notice: ``tox -e mutants``.

The changes are those of cosmic-ray. A sample is drawn with a seed from every one of them in evidence, instruments, experiments
and report, so that the share that is noticed has an exact interval. A change is tried against the test modules that import the
changed module (or, where none does, what imports it); what survives these is tried against those of its importers, too.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import functools
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from lab import json_lines
from lab.seeding_subject import ROOT, LabError

KEPT: Final = ROOT / "docs" / "evidence" / "mutants.jsonl"
PACKAGES: Final = ("evidence", "instruments", "experiments", "report")
LIMIT_S, LIMIT_SHARE = 60.0, 4.0
"""Tests that take longer than so long, and than so many times what they take without the change, have noticed it."""
EXCERPT: Final = 40
"""Characters: a slice in a message that is at least so long cuts an excerpt."""
COPIED: Final = ("fixtures", "suite", "lab", "tests", "configs", "docs", "deploy", ".github", ".ci")

Outcome = Literal["noticed", "survived", "too slow"]


@dataclass(frozen=True, order=True)
class Place:
    """Where a change is made, as cosmic-ray counts."""

    module: str
    operator: str
    occurrence: int


@dataclass(frozen=True)
class Mutant:
    """One change, and what became of it."""

    module: str
    """Its path in the project."""
    was: str
    """The changed line."""
    becomes: str
    operator: str
    outcome: Outcome
    by: tuple[str, ...]
    """The test modules that were run last."""
    seconds: float
    seed: int
    why: str = ""
    """Of one that survived: why no test can or should notice it; given by hand."""

    @property
    def key(self) -> tuple[str, str, str]:
        """The same change has the same, wherever its line is by now."""
        return self.module, self.was, self.becomes


def read(path: Path = KEPT) -> list[Mutant]:
    """Every mutant that is kept."""
    return json_lines.read(path, Mutant)


# --- which changes there are ------------------------------------------------------------------------------------------
def places(modules: Iterable[Path] | None = None) -> list[Place]:
    """Every change that cosmic-ray can make in these modules, or in all of `PACKAGES`."""
    import cosmic_ray.plugins  # the only user of it: tox -e mutants installs it
    from cosmic_ray.ast import ast_nodes, get_ast_from_path

    found = []
    every = (path for package in PACKAGES for path in (ROOT / "fixtures" / package).rglob("*.py"))
    for module in every if modules is None else modules:
        nodes = list(ast_nodes(get_ast_from_path(module)))
        for name in cosmic_ray.plugins.operator_names():
            kind = cosmic_ray.plugins.get_operator(name)
            if kind.arguments():
                continue
            count = sum(1 for node in nodes for _ in kind().mutation_positions(node))
            found += [Place(str(module.relative_to(ROOT)), name, number) for number in range(count)]
    return sorted(found)


def changed(place: Place) -> str | None:
    """The text of the module with its change; None if that is not a program, or means the same as before."""
    import cosmic_ray.plugins
    from cosmic_ray.mutating import mutate_code

    text = (ROOT / place.module).read_text()
    new: str | None = mutate_code(text, cosmic_ray.plugins.get_operator(place.operator)(), place.occurrence)
    try:
        return None if new is None or meaning(new) == meaning(text) else new
    except SyntaxError:
        return None


def meaning(text: str) -> str:
    """A module without what no run looks at, or has no right value; docs/quality.md tells these rules.

    Left out are annotations, which stay text, imports for types and ``if __name__ == "__main__"``; ``is`` and ``==`` beside a
    literal are one thing (Python has one object of each short text and small number); so is every number in the seconds of a
    module's own deadlines and pauses (``*_S``; thresholds are in catalogue/limits.py) and in the length of a message's excerpt.
    """
    return ast.dump(_Meaning().visit(ast.parse(text)))


class _Meaning(ast.NodeTransformer):
    def visit_Module(self, node: ast.Module) -> ast.AST:
        for one in node.body:
            if isinstance(one, ast.Assign | ast.AnnAssign) and _are_seconds(one):
                one.value = ast.Constant(None)
        return self.generic_visit(node)

    def visit_If(self, node: ast.If) -> ast.AST | None:
        test = ast.unparse(node.test)
        self.generic_visit(node)
        return None if test in ("TYPE_CHECKING", "__name__ == '__main__'") else node

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        self.generic_visit(node)
        node.returns = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        self.generic_visit(node)
        node.annotation = ast.Constant(None)
        return node

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        self.generic_visit(node)
        if any(isinstance(one, ast.Constant) for one in (node.left, *node.comparators)):
            same: dict[type[ast.cmpop], ast.cmpop] = {ast.Is: ast.Eq(), ast.IsNot: ast.NotEq()}
            node.ops = [same.get(type(one), one) for one in node.ops]
        return node

    def visit_FormattedValue(self, node: ast.FormattedValue) -> ast.AST:
        for one in ast.walk(node.value):
            if isinstance(one, ast.Slice):
                one.lower, one.upper = (_without_length(bound) for bound in (one.lower, one.upper))
        return self.generic_visit(node)


def _are_seconds(node: ast.Assign | ast.AnnAssign) -> bool:
    """Whether every name that it gives a value ends in ``_S``."""
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    names = [one.id for target in targets for one in ast.walk(target) if isinstance(one, ast.Name)]
    return bool(names) and all(name.isupper() and name.endswith("_S") for name in names)


def _without_length(bound: ast.expr | None) -> ast.expr | None:
    """The bound of a slice; that of an excerpt (a number of at least `EXCERPT`) counts as one, whatever its number."""
    text = "" if bound is None else ast.unparse(bound).lstrip("-~+")
    return ast.Constant("a length") if text.isdigit() and int(text) >= EXCERPT else bound


def sample(count: int, seed: int) -> Iterator[tuple[Place, str]]:
    """So many changes, drawn with a seed from all that mean something; the same seed gives the same ones."""
    every = places()
    random.Random(seed).shuffle(every)
    for place in every:
        if count and (new := changed(place)) is not None:
            count -= 1
            yield place, new


def key_of(place: Place, new: str) -> tuple[str, str, str]:
    """Module, changed line, and what it becomes."""
    old = (ROOT / place.module).read_text()
    lines = list(difflib.unified_diff(old.splitlines(), new.splitlines(), lineterm="", n=0))[3:]
    was, becomes = (" ".join(one[1:].strip() for one in lines if one.startswith(sign)) for sign in "-+")
    return place.module, was, becomes


def survivors(kept: Iterable[Mutant]) -> Iterator[tuple[Place, str]]:
    """The changes that survived, and that are not explained, as far as their lines are still there."""
    last = {one.key: one for one in kept}.values()
    wanted = {one.key for one in last if one.outcome == "survived" and not one.why}
    for place in places(ROOT / module for module in sorted({module for module, _, _ in wanted})):
        new = changed(place)
        if new is not None and key_of(place, new) in wanted:
            wanted.remove(key_of(place, new))  # another operator may make the same change
            yield place, new


# --- which tests may notice -------------------------------------------------------------------------------------------
def imported(path: Path) -> frozenset[str]:
    """The modules of the project that a file imports, as paths."""
    package = list(path.relative_to(ROOT).parent.parts)
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            whole = ".".join([*base, *(node.module or "").split(".")]).strip(".")
            names |= {whole} | {f"{whole}.{alias.name}" for alias in node.names}
    files = {f"{name.replace('.', '/')}{end}" for name in names for end in (".py", "/__init__.py")}
    return frozenset(file for file in files if (ROOT / file).is_file())


@functools.cache
def _importers() -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    for folder in ("fixtures", "tests"):
        for path in (ROOT / folder).rglob("*.py"):
            for module in imported(path):
                found.setdefault(module, set()).add(str(path.relative_to(ROOT)))
    return {module: frozenset(by) for module, by in found.items()}


def tests_of(module: str) -> list[tuple[str, ...]]:
    """Test modules that may notice a change of a module: first those that import it, then also those of its importers."""
    rounds: list[tuple[str, ...]] = []
    reached, new = {module}, {module}
    while new and len(rounds) < 2:
        new = {by for one in new for by in _importers().get(one, ())} - reached
        reached |= new
        tests = tuple(sorted(one for one in reached if Path(one).name.startswith("test_")))
        if tests and tests not in rounds:
            rounds.append(tests)
    return rounds


# --- one change -------------------------------------------------------------------------------------------------------
class Workshop:
    """A copy of the project in which changes are made."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in COPIED:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        for file in ROOT.glob("*.*"):
            if file.is_file():
                shutil.copy2(file, folder)
        self._limits: dict[tuple[str, ...], float] = {}

    def try_out(self, place: Place, new: str, seed: int) -> Mutant:
        """Make a change, run the tests that may notice it, undo it.

        Raises:
            LabError: they do not pass without it.
        """
        path, begin = self.folder / place.module, time.monotonic()
        old = path.read_text()
        outcome: Outcome = "survived"
        by: tuple[str, ...] = ()
        for tests in tests_of(place.module):
            limit = self._limit_s(tests)
            path.write_text(new)
            try:
                outcome, by = self._outcome(tests, limit), tests
            finally:
                path.write_text(old)
            if outcome != "survived":
                break
        module, was, becomes = key_of(place, new)
        seconds = round(time.monotonic() - begin, 1)
        return Mutant(module, was, becomes, place.operator.partition("/")[2], outcome, by, seconds, seed)

    def _limit_s(self, tests: tuple[str, ...]) -> float:
        if tests not in self._limits:
            begin = time.monotonic()
            if self._outcome(tests, None) != "survived":
                raise LabError(f"these tests do not pass without any change: {' '.join(tests)}")
            self._limits[tests] = max(LIMIT_S, LIMIT_SHARE * (time.monotonic() - begin))
        return self._limits[tests]

    def _outcome(self, tests: tuple[str, ...], limit_s: float | None) -> Outcome:
        # Without byte code: a change of the same second and size would not be seen.
        variables = os.environ | {"PYTHONPATH": str(self.folder), "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
        try:
            done = subprocess.run(command, cwd=self.folder, env=variables, capture_output=True, timeout=limit_s)
        except subprocess.TimeoutExpired:
            return "too slow"
        return "survived" if done.returncode == 0 else "noticed"


def main(arguments: list[str] | None = None) -> int:
    """Draw a sample, try it, and keep what became of it; what is kept already is not tried again."""
    parser = argparse.ArgumentParser(prog="python -m lab.mutants", description=__doc__.split("\n\n")[0])
    parser.add_argument("--sample", type=int, default=200, metavar="N", help="how many changes (default: 200)")
    parser.add_argument("--seed", type=int, default=19, help="of the sample (default: 19)")
    parser.add_argument("--shard", default="1/1", metavar="K/N", help="the K-th of N parts of the sample")
    parser.add_argument("--minutes", type=float, metavar="MIN", help="begin none after this time")
    parser.add_argument(
        "--again", action="store_true", help="try again what survived and is not explained, and nothing else"
    )
    options = parser.parse_args(arguments)
    shard, _, shards = options.shard.partition("/")
    begin, kept = time.monotonic(), read()
    known = {one.key for one in kept}
    drawn = survivors(kept) if options.again else sample(options.sample, options.seed)
    with tempfile.TemporaryDirectory(prefix="kv-mutants-") as folder:
        workshop = Workshop(Path(folder))
        for number, (place, new) in enumerate(drawn):
            if number % int(shards) != int(shard) - 1 or (not options.again and key_of(place, new) in known):
                continue
            if options.minutes is not None and time.monotonic() - begin > 60 * options.minutes:
                break
            try:
                found = workshop.try_out(place, new, options.seed)
            except LabError as error:
                print(f"{number + 1:4} left out: {place.module}: {error}", file=sys.stderr, flush=True)
                continue
            json_lines.keep(KEPT, found)
            print(f"{number + 1:4} {found.outcome:8} {found.module}: {found.was} -> {found.becomes}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
