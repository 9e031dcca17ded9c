"""Secrets are planted wherever a run can meet one; no file that it leaves for others, and no line it prints, holds one."""

from __future__ import annotations

import base64
import io
import json
import runpy
import stat
import tarfile
import xml.etree.ElementTree as ElementTree
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.core.files import append, make_folder
from tests.secrets import PLANTED
from tests.verdict_sessions import HEAD, ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from tests.verdict_sessions import Run

pytest_plugins = ("pytester", "tests.verdict_sessions")

SOURCE = (
    HEAD
    + """
import logging
from tests.secrets import PLANTED

TEXTS = {kind: text for kind, (_, text) in PLANTED.items()}
ALL = "\\n".join(TEXTS.values())

@pytest.fixture
def leaky():
    print(ALL)
    yield
    print(ALL)

@requirement("ACC-01")
@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_an_answer_is_not_what_was_expected(text, leaky, record_property, pytestconfig, evidence):
    evidence("answer", text)
    evidence("facts", {"text": text, "lines": [text]}, kind="json")
    publish_subject(pytestconfig, {"stack": "process", "config": "one", "command": text, "ignored": [text]})
    record_property("note", text)
    logging.getLogger("x").warning(text)
    assert text == "", text

@requirement("ACC-02")
def test_the_run_goes_wrong():
    raise StackError("the engine said: " + ALL)

@requirement("ACC-03")
def test_cannot_be_judged():
    raise NotJudged(ALL)

@requirement("ACC-04")
def test_the_subject_is_at_fault(record_xml_attribute):
    raise SubjectFault(ALL)

@requirement("ACC-05")
def test_a_plain_error(leaky):
    text = ALL
    raise ValueError(text)

@pytest.mark.parametrize("text", TEXTS.values())
def test_of_nothing(text):
    pass
"""
)


def leaks(text: str) -> list[str]:
    return [kind for kind, (secret, _) in PLANTED.items() if secret in text]


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.long)])
def test_no_file_of_a_run_holds_a_secret(project: pytest.Pytester, run: Run, workers: int) -> None:
    result = run(SOURCE, "--junit-xml=reports/junit.xml", "-rA", "-n1" if workers else "-v", apart=bool(workers))
    assert result.ret == 1
    reports = project.path / "reports"
    files = [path for path in reports.rglob("*") if path.is_file()]
    assert {"conformance.json", "conformance.md", "junit.xml"} <= {path.name for path in files}
    assert len([path for path in files if path.parent.name == "allure-results"]) > 50
    found = {path.name: leaks(path.read_text(errors="replace")) for path in files}
    assert {name: kinds for name, kinds in found.items() if kinds} == {}
    printed = [line for line in result.outlines + result.errlines if "test_of_nothing" not in line]  # ids are names
    assert leaks("\n".join(printed)) == []
    suite = ElementTree.parse(reports / "junit.xml").getroot()[0]
    assert int(suite.get("tests", "0")) == 2 * len(PLANTED) + 4
    published: Any = runpy.run_path(str(ROOT / "deploy/publish.py"))["manifest"]("name", reports)
    assert leaks(json.dumps(published["data"])) == []


def test_what_is_published_is_redacted_once_more(tmp_path: Path) -> None:
    """An older report, or a file that some other program wrote into the folder."""
    everything = "\n".join(text for _, text in PLANTED.values())
    (tmp_path / "allure-results").mkdir()
    (tmp_path / "conformance.md").write_text(everything)
    (tmp_path / "allure-results" / "1-attachment.txt").write_text(everything)
    (tmp_path / "allure-results" / "2-attachment.png").write_bytes(b"\x89PNG\xff")
    root = ElementTree.Element("testsuites")
    ElementTree.SubElement(root, "system-out").text = everything
    (tmp_path / "junit.xml").write_bytes(ElementTree.tostring(root))
    published: Any = runpy.run_path(str(ROOT / "deploy/publish.py"))["manifest"]("name", tmp_path)
    assert leaks(published["data"]["conformance.md"]) == []
    with tarfile.open(fileobj=io.BytesIO(base64.b64decode(published["binaryData"]["allure.tar.gz"]))) as tar:
        texts = {one.name: tar.extractfile(one).read() for one in tar.getmembers()}  # type: ignore[union-attr]
    assert sorted(texts) == ["allure-results/1-attachment.txt", "allure-results/2-attachment.png", "junit.xml"]
    assert [name for name, text in texts.items() if leaks(text.decode(errors="replace"))] == []
    assert texts["allure-results/2-attachment.png"] == b"\x89PNG\xff"


def test_the_folder_of_a_run_is_the_users_alone(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "runs" / "one")
    with append(folder / "engine.log") as log:
        log.write(b"first\n")
    with append(folder / "engine.log") as log:
        log.write(b"second\n")
    assert (folder / "engine.log").read_text() == "first\nsecond\n"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "engine.log").stat().st_mode) == 0o600
    (tmp_path / "mine").mkdir(mode=0o755)
    assert stat.S_IMODE(make_folder(tmp_path / "mine").stat().st_mode) == 0o755
