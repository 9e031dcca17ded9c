"""fixtures.core.yaml_limits: what is measured, and that measuring is quick whatever it meets."""

from __future__ import annotations

import json
import random
import time

import pytest
import yaml

from fixtures.core.yaml_limits import LOADER, TooLargeError, check_size

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
CHAIN = "a0: &a0 [x]\n" + "".join(f"a{n + 1}: &a{n + 1} [*a{n}]\n" for n in range(60))
TOO_LARGE = {
    "many keys": ("key: 1\n" * 400_000, "contains more than 1000 values"),
    "many items": ("a: [" + "1," * 2_500_000 + "]", "contains more than 1000 values"),
    "aliases of aliases": (BOMB, "contains more than 1000 values after expansion of its aliases (*name)"),
    "a long text, repeated": (
        f"a: &a {'x' * 50_000}\nb: [*a, *a]",
        "contains more than 1000 values after expansion of its aliases",
    ),
    "itself": ("a: &a [*a]", "contains an anchor that refers to itself"),
    "itself, in a mapping": ("a: &a {b: {c: *a}}", "contains an anchor that refers to itself"),
    "brackets": ("[" * 5_000_000, "is nested more than 20 levels deep"),
    "closed brackets": ("[" * 21 + "]" * 21, "is nested more than 20 levels deep"),
    "dashes": ("- " * 100_000, "is nested more than 20 levels deep"),
    "mappings": ("{a: " * 100_000, "is nested more than 20 levels deep"),
    "aliases": (CHAIN, "is nested more than 20 levels deep"),
    "documents": ("--- [1, 2]\n" * 500_000, "contains more than 1000 values"),
}


@pytest.mark.parametrize("what", TOO_LARGE)
def test_what_is_too_large_is_told_at_once(what: str) -> None:
    text, problem = TOO_LARGE[what]
    began = time.process_time()
    with pytest.raises(TooLargeError) as error:
        check_size(text, values=1000, levels=20)
    assert str(error.value).startswith(problem)
    assert time.process_time() - began < 2


def test_what_is_within_the_limits_passes() -> None:
    check_size("[" * 20 + "]" * 20, values=1000, levels=20)
    check_size("".join(f"key{n}: 1\n" for n in range(499)), values=1000, levels=20)
    check_size("a: &a {b: 1}\nc: [*a, *a]\n--- {a: 1}\n", values=20, levels=3)
    check_size("a: *nowhere", values=20, levels=3)  # the loader says what is wrong
    with pytest.raises(TooLargeError, match=r"contains the alias \*a, and aliases are not supported here"):
        check_size("a: &a 1\nb: *a", values=20, levels=3, aliases=False)
    with pytest.raises(yaml.YAMLError):
        check_size("a: b: c", values=20, levels=3)


def test_values_and_levels_are_those_of_what_is_loaded() -> None:
    """The measure of random documents with anchors against that of what PyYAML makes of them."""
    dice = random.Random(7)

    def text(depth: int, names: list[str]) -> str:
        kind = dice.randrange(4 if depth else 2)
        if kind == 0 and names:
            return f"*{dice.choice(names)}"
        if kind < 2:
            return "1"
        inner = [text(depth - 1, names) for _ in range(dice.randint(1, 3))]
        whole = (
            f"[{', '.join(inner)}]"
            if kind == 2
            else "{" + ", ".join(f"k{n}: {one} " for n, one in enumerate(inner)) + "}"
        )
        name = f"n{dice.randrange(10**9)}"
        names.append(name)
        return f"&{name} {whole}"

    def size(value: object) -> tuple[int, int]:
        inner = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else None
        if inner is None:
            return 1, 0
        below = [size(one) for one in inner]
        return 1 + sum(one for one, _ in below), 1 + max(levels for _, levels in below)

    for _ in range(300):
        document = text(4, [])
        values, levels = size(json.loads(json.dumps(yaml.load(document, Loader=LOADER))))
        check_size(document, values=values, levels=levels)
        if values > 1:
            with pytest.raises(TooLargeError, match="contains more than"):
                check_size(document, values=values - 1, levels=levels)
            with pytest.raises(TooLargeError, match="is nested"):
                check_size(document, values=values, levels=levels - 1)
