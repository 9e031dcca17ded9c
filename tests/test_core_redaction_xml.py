"""Secrets in XML, which stays XML."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import pytest

from fixtures.core.redaction.names import MASK
from fixtures.core.redaction.redact import redact_xml


def test_xml_is_redacted_and_stays_xml() -> None:
    text = '<a><p name="HF_TOKEN" value="planted"/><t m="--api-key=planted-2">Bearer planted-3 &lt;x&gt;</t></a>'
    found = redact_xml(text)
    assert "planted" not in found
    assert ElementTree.fromstring(found).findtext("t") == f"Bearer {MASK} <x>"
    assert redact_xml("<a> Bearer planted-3") == f"<a> Bearer {MASK}"


@pytest.mark.parametrize(
    "text",
    [
        '<a><property name="HF_TOKEN">planted</property></a>',
        "<a><password>planted</password></a>",
        '<a apiKey="planted"/>',
        '<a><property value="planted" name="HF_TOKEN"/>&#0;</a>',
        '<a><property name="HF_TOKEN">planted</property>&#0;</a>',
        '<a apiKey="planted"/>&#0;',
        "<a><password>planted</password>",
    ],
)
def test_a_secret_is_masked_wherever_xml_holds_it(text: str) -> None:
    found = redact_xml(text)
    assert "planted" not in found
    assert redact_xml(found) == found


@pytest.mark.parametrize("more", ["", "&#0;"])
def test_a_test_that_is_called_like_a_secret_keeps_its_text(more: str) -> None:
    text = f'<testcase name="test_api_key"> in words <skipped message="why" />{more}</testcase>'
    assert redact_xml(text).endswith(text)
