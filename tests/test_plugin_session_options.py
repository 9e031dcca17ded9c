"""Options and ini settings in sessions of pytest: what looks starts nothing, what is wrong is one sentence."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pynvml
import pytest

from fixtures.core.record import StackRecord
from fixtures.plugin.option_table import TABLE
from fixtures.provide.process import launch
from tests import fakes, process_project
from tests.apart import ADDOPTS, run

if TYPE_CHECKING:
    from tests.process_project import Project

pytest_plugins = ("pytester",)

project = process_project.project


def ini(project: Project, **values: object) -> None:
    project.pytester.makeini(
        f"[pytest]\ntestpaths = suite\naddopts = {ADDOPTS}\n"
        + "".join(f"{name} = {value}\n" for name, value in values.items())
    )


# --- collection is pure -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "args", ["--help", "--markers", "--collect-only", "--setup-plan", "--fixtures", "--collect-only -n2", "--version"]
)
def test_looking_starts_nothing(project: Project, monkeypatch: pytest.MonkeyPatch, args: str) -> None:
    def touched(*_: object, **__: object) -> None:
        raise AssertionError("collection touched the world")

    for where, name in ((subprocess, "Popen"), (os, "fork"), (socket.socket, "connect"), (pynvml, "nvmlInit")):
        monkeypatch.setattr(where, name, touched)
    result = project.run(*args.split(), *project.subject)
    assert result.ret == 0
    assert "touched the world" not in result.stdout.str() + result.stderr.str()
    for name in ("runs", "reports", "cache"):
        assert not (project.path / name).exists()
    assert project.running() == []


def test_every_option_has_a_help_text_and_an_ini_twin(project: Project) -> None:
    text = project.run("--help").stdout.str()
    options, _, twins = text.partition("[pytest] configuration options")
    for option in TABLE:
        about = re.search(rf"^  --{option.name}(?![\w-]).*?(?=^  --|\n\n)", options, re.MULTILINE | re.DOTALL)
        assert about, f"--{option.name} is not in --help"
        assert len(about[0]) > len(option.name) + 40, f"--{option.name} has no help text"
        assert re.search(rf"\bini:\s+{option.ini}\b", about[0]), f"--{option.name} does not name its ini setting"
        assert re.search(rf"^  {option.ini} \(", twins, re.MULTILINE), f"{option.ini} is not an ini option"


# --- bad input --------------------------------------------------------------------------------------------------------

BAD: dict[str, tuple[str, str]] = {
    # what is wrong: (arguments, what is said); {p} is the project's folder
    "unknown configuration": ("--config nope", "no configuration 'nope'; .*cpu-offload, .*embedded"),
    "misspelt configuration": ("--config embeded", "did you mean embedded"),
    "empty values": ("--config {p}/empty.yaml", "empty.yaml is empty; write"),
    "values not YAML": ("--config {p}/torn.yaml", r"torn.yaml, line \d, column \d+: .*correct"),
    "unknown key": ("--config {p}/key.yaml", "key.yaml: .*modelURl.*modelURL"),
    "wrong type": ("--config {p}/type.yaml", "type.yaml: .*modelSpec"),
    "two models": ("--config {p}/two", "lists 2 models; .*remove the others"),
    "model without tokenizer": ("--config {p}/untold", "has no tokenizer .*copy the tokenizer of the model into it"),
    "one configuration twice": ("--config {p}/one --config {p}/other/one", "two configurations have the name one"),
    "nothing to compare with": ("--compare embedded", "--compare embedded: name at least two configurations"),
    "compared with another one": ("--compare embedded,two-engines --config embedded", "omit --config"),
    "compared at once": ("--compare embedded,two-engines -n 2", "no two may run at once; omit -n"),
    "compared with none": ("--compare embedded,nope", "no configuration 'nope'"),
    "configuration for a GPU": ("--config cpu-offload", "needs a GPU: add --gpu, or choose another one"),
    "unknown stack": ("--stack cloud", "--stack cloud: choose one of process, chart, attach"),
    "record without attach": ("--record {p}/x.json", "--record requires --stack attach"),
    "attach without record": ("--stack attach", "needs one of: --record FILE"),
    "no such record": ("--stack attach --record {p}/x.json", "no stack record at .*x.json; give --record"),
    "not a record": ("--stack attach --record {p}/empty.yaml", "is not a stack record of this version"),
    "attach to a configuration": ("--stack attach --record x --config embedded", "omit --config, --gpu and --keep-stack"),
    "attach and keep": ("--stack attach --record x --keep-stack", "omit --config, --gpu and --keep-stack"),
    "seed no number": ("--seed many", "--seed many is not an integer"),
    "no such interpreter": ("--engine-python {p}/python", "python does not exist: set --engine-python"),
    "interpreter is a folder": ("--engine-python {p}", "is a folder: set --engine-python to the interpreter in it"),
    "interpreter without vLLM": (f"--engine-python={sys.executable}", "has no vllm package: install it there"),
    "interpreter for CUDA": ("--engine-python {p}/cuda/bin/python", "is built for cuda, but this run is on cpu: add --gpu"),
    "two environments": ("--engine-python x --engine-env y", "exclude each other; give one"),
    "environment is a file": ("--engine-env {p}/empty.yaml", "is not an engine environment: name an empty"),
    "environment is a full folder": ("--engine-env {p}/one", "is not an engine environment: name an empty"),
    "run folder is a file": ("--run-dir {p}/empty.yaml/runs", "empty.yaml is not a writable folder"),
    "report folder is a file": ("--report-dir {p}/empty.yaml/reports", "--report-dir .*empty.yaml is not a writable folder"),
    "no such dashboard": ("--dashboard {p}/x.json", "--dashboard .*x.json: .*No such file"),
    "not a dashboard": ("--dashboard {p}/empty.yaml", "--dashboard .*empty.yaml: it is not the JSON of a Grafana dashboard"),
    "unknown profile": ("--profile lattency", "unknown profile 'lattency'.*latency"),
    "unknown gate": ("--gate=cor", "--gate: unknown profile 'cor'.*core"),
    "GPU without its environment": ("--gpu --stack process --config {p}/one", "set --engine-python to the .*for CUDA"),
    "no GPU": (
        "--gpu --stack process --config {p}/any.yaml --engine-python {p}/cuda/bin/python",
        "--gpu: no NVIDIA GPU can be used on this host .*omit --gpu",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence_at_once(project: Project, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    def no_driver() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", no_driver)
    monkeypatch.setattr(launch, "stand_up", lambda *_, **__: pytest.fail("something was started"))
    good = (project.config / "values.yaml").read_text()
    for name, text in {
        "empty.yaml": "",
        "torn.yaml": "servingEngineSpec:\n  modelSpec: [\n",
        "key.yaml": good.replace("modelURL", "modelURl"),
        "type.yaml": "servingEngineSpec: {modelSpec: 3}\n",
        "any.yaml": good,
    }.items():
        (project.path / name).write_text(text)
    if case == "two models":
        fakes.make_config(project.path / "two", models=2)
    elif case == "model without tokenizer":
        (fakes.make_config(project.path / "untold") / "model" / "tokenizer.json").unlink()
    elif case == "one configuration twice":
        shutil.copytree(project.config, project.path / "other" / "one")
    elif "cuda" in BAD[case][0]:
        fakes.make(project.path / "cuda", device="cuda")
    args, says = BAD[case]
    result = project.run(*args.format(p=project.path).split())
    said = result.stderr.str() + result.stdout.str()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert re.search(says, said), said
    assert "Traceback" not in said
    assert "INTERNALERROR" not in said
    errors = [line for line in said.splitlines() if re.search(r"^ERROR: |: error: ", line)]
    assert len(errors) == 1
    assert not (project.path / "runs").exists()


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("gpu", "true", "there is no kubeconfig|--gpu"),
        ("stack", "cloud", "--stack cloud: choose one of process, chart, attach"),
        ("config", "nope", "no configuration 'nope'"),
        ("record", "x.json", "--record requires --stack attach"),
        ("engine_env", "tox.ini", "--engine-env .*tox.ini is not an engine environment"),
        ("engine_python", "nowhere/python", "nowhere/python does not exist"),
        ("run_dir", "tox.ini", "--run-dir .*tox.ini is not a writable folder"),
        ("seed", "many", "--seed many is not an integer"),
        ("profile", "nope", "unknown profile 'nope'"),
        ("gate", "nope", "unknown profile 'nope'"),
    ],
)
def test_ini_twins_are_read_and_checked(project: Project, name: str, value: str, says: str) -> None:
    ini(project, **{name: value})
    result = project.run()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert re.search(says, result.stderr.str() + result.stdout.str())


# --- one run after another --------------------------------------------------------------------------------------------


@pytest.mark.long
def test_ini_twins_keep_attach_and_stop(project: Project, capfd: pytest.CaptureFixture[str]) -> None:
    ini(
        project,
        stack="process",
        config="one",  # a path in the ini file, as on the command line, may be relative
        engine_python="env/bin/python",
        run_dir="elsewhere",
        seed="77",
        keep_stack="true",
    )
    capfd.readouterr()
    assert project.run().ret == 0
    [record] = project.records("elsewhere")
    path = record.folder / "record.json"
    assert (record.keep, record.seeds, record.config) == (True, [77], "one")
    assert [note["seed"] for note in project.notes()] == [77]
    assert len(project.running()) == 3
    assert project.registered() == [record.id]
    said = capfd.readouterr().err
    assert f"stack {record.id} is kept: {record.engines[0].url}" in said
    assert f"pytest --stack attach --record {path}" in said
    assert f"python -m fixtures stop {path}" in said

    ini(project)
    attach = ("--stack=attach", f"--record={path}")
    result = project.run(*attach, "--seed=77")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*has already received the prompts of seed 77*omit --seed*"])
    assert project.run(*attach, "--seed=78").ret == 0
    assert project.run(*attach, "-n2", apart=True).ret == 0
    assert [note["pids"] for note in project.notes()] == [project.notes()[0]["pids"]] * 3
    seeds = StackRecord.load(path).seeds
    assert seeds == [77, 78, project.notes()[2]["seed"]], "also a run with workers notes what the stack has seen"
    ini(project, stack="attach", record=path.relative_to(project.path))
    assert project.run("--seed=79").ret == 0
    ini(project)
    assert len(project.running()) == 3, "attaching stops nothing"

    stop = ("fixtures", "stop")
    for _ in range(2):
        done = run(project.path, *stop, str(path))
        assert done.ret == 0
        assert re.fullmatch(rf"{record.id} is stopped: \d+ MiB freed in [\d.]+ s", done.stdout.str())
    assert project.running() == []
    assert project.registered() == []
    for wrong in ([], ["--help"], [str(project.path / "none.json")]):
        done = run(project.path, *stop, *wrong)
        assert done.ret == 2
        said = done.stderr.str()
        assert "python -m fixtures stop RECORD" in said or "no stack record at" in said

    result = project.run(*attach)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*fake-0, fake-0-tier of stack * no longer run; start a new one with --keep-stack*"])
