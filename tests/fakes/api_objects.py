"""Objects as clients send them to an API server, and what becomes of stored ones."""

from __future__ import annotations

import base64
import copy
from typing import Any

Json = dict[str, Any]


def fields(data: bytes) -> list[tuple[int, Any]]:
    """The fields of a protobuf message: (number, integer or bytes)."""

    def varint(at: int) -> tuple[int, int]:
        value = shift = 0
        while True:
            byte = data[at]
            value, shift, at = value | (byte & 0x7F) << shift, shift + 7, at + 1
            if not byte & 0x80:
                return value, at

    found: list[tuple[int, Any]] = []
    at = 0
    while at < len(data):
        tag, at = varint(at)
        value, at = varint(at)
        if tag & 7 == 2:
            found.append((tag >> 3, data[at : at + value]))
            at += value
        else:
            found.append((tag >> 3, value))
    return found


def secret(raw: bytes) -> Json:
    """A Secret as Helm 4 sends it, in protobuf (runtime.Unknown around core/v1 Secret); {} for anything else."""
    envelope = dict(fields(raw[4:]))
    if dict(fields(envelope[1])).get(2) != b"Secret":
        return {}
    message = fields(envelope[2])
    meta = fields(dict(message)[1])
    labels = [dict(fields(value)) for number, value in meta if number == 11]
    data = [dict(fields(value)) for number, value in message if number == 2]
    return {
        "metadata": {
            "name": dict(meta)[1].decode(),
            "labels": {one[1].decode(): one.get(2, b"").decode() for one in labels},
        },
        "data": {one[1].decode(): base64.b64encode(one.get(2, b"")).decode() for one in data},
        "type": dict(message).get(3, b"Opaque").decode(),
    }


def applied(below: Json, body: Json) -> Json:
    """An object after an apply: labels and annotations of others stay."""
    found = copy.deepcopy(below) | copy.deepcopy(body)
    for part in ("labels", "annotations"):
        kept = {**(below.get("metadata", {}).get(part) or {}), **(body["metadata"].get(part) or {})}
        if kept:
            found["metadata"][part] = kept
    return found


def merged(below: Json, above: Json) -> Json:
    for key, value in above.items():
        if value is None:
            below.pop(key, None)
        elif isinstance(value, dict) and isinstance(below.get(key), dict):
            below[key] = merged(below[key], value)
        else:
            below[key] = value
    return below


def selected(thing: Json, selector: str) -> bool:
    labels = thing["metadata"].get("labels") or {}
    for part in selector.split(","):
        key, equals, value = part.replace("==", "=").partition("=")
        if key and (key not in labels or (equals and labels[key] != value)):
            return False
    return True
