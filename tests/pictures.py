"""What a picture (SVG) says, and that it says it inside of its frame."""

from __future__ import annotations

from xml.etree import ElementTree

SVG = "{http://www.w3.org/2000/svg}"


def texts(svg: str) -> list[str]:
    return [str(element.text) for element in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def within(svg: str) -> None:
    """Nothing is drawn outside the picture."""
    root = ElementTree.fromstring(svg)
    size = root.get("viewBox", f"0 0 {root.get('width')} {root.get('height')}")
    _, _, width, height = map(float, size.split())
    for element in root.iter():
        for name, most in (("x", width), ("cx", width), ("y", height), ("cy", height)):
            assert 0 <= float(element.get(name, 0)) <= most, ElementTree.tostring(element)
