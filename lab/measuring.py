"""What ``python -m lab`` does besides seeding faults: healthy runs, simulated verdicts, recorded samples (docs/quality.md)."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from fixtures.core.errors import ConfigurationError, StackError
from lab import quality
from lab.healthy_runs import repeat
from lab.power import sample_recording, simulate
from lab.seeding_subject import LabError

if TYPE_CHECKING:
    from lab.runner import Runner


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of these."""
    runs = f"with --power: at each size of an effect (default: {simulate.RUNS})"
    parser.add_argument(
        "--healthy", type=int, metavar="N", help="run the suite on a healthy stack until N runs are kept"
    )
    parser.add_argument("--minutes", type=float, metavar="MIN", help="with --healthy: begin no run after this time")
    parser.add_argument("--power", nargs="*", metavar="ID", help="simulate the statistical verdicts; starts nothing")
    parser.add_argument("--runs", type=int, default=simulate.RUNS, metavar="N", help=runs)
    parser.add_argument("--record-samples", action="store_true", help="measure what --power simulates with, here")


def needs_no_stack(options: argparse.Namespace) -> bool:
    """Simulate, where that is asked for."""
    if options.power is None:
        return False
    simulate.simulate(options.runs, options.power)
    quality.write()
    return True


def measure(runner: Runner, options: argparse.Namespace) -> int:
    """Record samples, or run the suite on a healthy stack; what there is afterwards is kept, whatever ends it."""
    try:
        if options.record_samples:
            print(sample_recording.record(runner).where)
            return 0
        runs = repeat(runner, options.healthy, minutes=options.minutes)
    except (LabError, ConfigurationError, StackError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    finally:
        runner.close(keep_logs=options.keep_logs)
        quality.write()
    false = sum(bool(one.fired or one.errors) for one in runs)
    print(f"false alarms or errors in {false} of {len(runs)} runs of the suite as it is")
    return 1 if false else 0
