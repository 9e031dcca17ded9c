"""Seed every fault into a real stack and show which requirement catches it: ``python -m lab``.

Exit codes: 0 every fault was caught by what should catch it and by nothing unrelated, and no healthy variant raised
anything; 1 one was not; 2 a fault could not be seeded, or the lab went wrong; 3 the time given with ``--budget`` was not
enough.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from fixtures.core.errors import ConfigurationError
from fixtures.core.files import cache_dir
from lab import history, measuring, quality
from lab.catalogue import FAULTS, GPU_FAULTS, GPU_HEALTHY, HEALTHY, SAMPLE
from lab.detection_page import detection, how, summary
from lab.grouping import part
from lab.quality import TRIES
from lab.runner import Runner
from lab.seeding_subject import ROOT, LabError, Subject

if TYPE_CHECKING:
    from lab.result import Entry


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m lab", description=__doc__.split("\n\n")[0])
    parser.add_argument("--only", action="append", nargs="+", metavar="ID", help="these faults or variants only")
    parser.add_argument("--sample", action="store_true", help="a few faults of several kinds, in some minutes")
    parser.add_argument("--part", metavar="K/N", help="the K-th of N parts of the catalogue, for a rota")
    parser.add_argument("--list", action="store_true", help="show the catalogue and end")
    parser.add_argument(
        "--page", action="store_true", help="keep the tries of this machine, write the page, run nothing"
    )
    parser.add_argument("--fresh", action="store_true", help="run again what is known already")
    parser.add_argument("--keep-logs", action="store_true", help="leave logs and reports where they are")
    parser.add_argument("--gpu", action="store_true", help="seed the faults that need an NVIDIA GPU of this host")
    parser.add_argument("--config", metavar="NAME", help="with --gpu: configuration (default: gpu-small)")
    parser.add_argument("--random-weights", metavar="GEOMETRY", help="with --gpu: as of pytest")
    parser.add_argument("--budget", type=float, metavar="MIN", help="fail when the whole lab takes longer")
    measuring.add_options(parser)
    return parser


def _wanted(options: argparse.Namespace, entries: dict[str, Entry], parser: argparse.ArgumentParser) -> list[str]:
    """The ids that are chosen; none: all of them."""
    wanted = [id_ for group in options.only or [] for id_ in group] + list(SAMPLE if options.sample else ())
    if options.part:
        number, _, of = options.part.partition("/")
        if not (number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
            parser.error(f"--part {options.part}: expected K/N, such as 3/16")
        wanted += [entry.id for entry in part(entries.values(), int(number), int(of))]
    unknown = [id_ for id_ in wanted if id_ not in entries]
    if unknown:
        parser.error(f"not in the catalogue: {', '.join(unknown)} (see --list)")
    return wanted


def main(arguments: list[str] | None = None) -> int:
    """Run what is asked for; see the module."""
    parser = _parser()
    options = parser.parse_args(arguments)
    faults, healthy = (GPU_FAULTS, GPU_HEALTHY) if options.gpu else (FAULTS, HEALTHY)
    entries: dict[str, Entry] = {one.id: one for one in healthy} | {one.id: one for one in faults}
    if not options.gpu and (options.config or options.random_weights):
        parser.error("--config and --random-weights belong to --gpu; the other faults are seeded into 'embedded'")
    subject = Subject(options.config or "gpu-small", "cuda", options.random_weights) if options.gpu else Subject()
    page = ROOT / "docs" / ("detection-gpu.md" if options.gpu else "detection.md")

    def write_page(tries: Path) -> None:
        every = history.merge(TRIES, history.read(tries))
        page.write_text(detection([one for one in every if one.on_gpu == options.gpu], faults, healthy))
        quality.write()

    if options.page:
        write_page(cache_dir() / "lab" / "tries.jsonl")
        return 0
    if measuring.needs_no_stack(options):
        return 0
    if options.list:
        for entry in entries.values():
            print(f"{entry.id:36} {how(getattr(entry, 'injection', getattr(entry, 'setting', None)))}")
        return 0
    wanted = _wanted(options, entries, parser)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(2))  # SIGTERM by default ends Python without any tear-down
    runner = Runner(subject, fresh=options.fresh)
    if options.healthy is not None or options.record_samples:
        return measuring.measure(runner, options)
    begin = time.monotonic()
    results = []
    try:
        results = runner.run([entries[id_] for id_ in wanted] if wanted else list(entries.values()))
    except (LabError, ConfigurationError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    finally:
        runner.close(keep_logs=options.keep_logs or not results or not all(result.good for result in results))
    minutes = (time.monotonic() - begin) / 60
    figures = summary([history.Try.of(one, runner.versions, "") for one in results], faults, healthy)
    if not wanted:
        write_page(runner.tries)
    print(
        f"faults caught: {figures['caught']} of {figures['seeded']}; unrelated: {figures['unrelated']}; "
        f"false alarms: {figures['false_alarms']} in {figures['healthy']} healthy runs; "
        f"not judged: {sum(bool(one.undecided) for one in results)}; {minutes:.1f} min"
    )
    if any(result.unproven for result in results):
        return 2
    if any(result.failed for result in results):
        return 1
    if options.budget is not None and minutes > options.budget:
        print(f"error: the lab took {minutes:.1f} min, {options.budget:g} are allowed", file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
