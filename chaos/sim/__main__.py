"""`make sim`: runs seeds, and says what broke.

The last line is `sim: seeds=… violations=… virtual_s=… real_s=…`; the exit
status is 1 when anything was found. A failing seed is run again with ever
fewer faults, and what is left is printed with a timeline, and as a line that
``--plan`` reads.
"""

from __future__ import annotations

import argparse
import multiprocessing
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from multiprocessing.pool import Pool
from pathlib import Path

from holdfast.chaos.sim.plan import Plan, make_plan
from holdfast.chaos.sim.planfile import read_plans, to_line
from holdfast.chaos.sim.run import Outcome, run
from holdfast.chaos.sim.sabotage import NONE, SABOTAGES, Sabotage
from holdfast.chaos.sim.seeds import quiet, run_plan, run_seed
from holdfast.chaos.sim.shrink import shrink

_PROGRESS_S = 10.0
_CHUNK = 8


def main(arguments: list[str] | None = None) -> int:
    """The command; gives the exit status."""
    options = _parse(arguments)
    if options.list:
        print("\n".join(SABOTAGES))
        return 0
    sabotage = NONE
    if options.sabotage:
        if options.sabotage not in SABOTAGES:
            print(f"no planted bug {options.sabotage!r}; `make sim-sabotages` lists them", file=sys.stderr)
            return 2
        sabotage = SABOTAGES[options.sabotage]
    plans: list[Plan] | None = None
    if options.plan:
        try:
            plans = read_plans(_text_of(options.plan))
        except (OSError, ValueError) as error:
            print(f"cannot read plans from {options.plan}: {error}", file=sys.stderr)
            return 2
    quiet()
    first = options.seed
    seeds = options.seeds if options.seeds is not None else (1 if options.seed_given else 100)
    total = seeds if plans is None else len(plans)
    outcomes = (
        _run_seeds(range(first, first + seeds), sabotage.name, options.jobs)
        if plans is None
        else _run_plans(plans, sabotage.name, options.jobs)
    )
    began = time.monotonic()
    virtual, done, broken = 0.0, 0, 0
    told = began
    for plan, outcome in outcomes:
        done += 1
        virtual += outcome.virtual_s
        if outcome.violations:
            broken += len(outcome.violations)
            _explain(plan, outcome, sabotage, shrinking=not options.no_shrink, drawn=plans is None)
            if sabotage is not NONE or not options.keep_going:
                break
        elif total == 1:
            print(f"seed {outcome.seed}: trace={outcome.trace:08x} {outcome.summary}")
            if options.timeline:
                print(outcome.timeline)
        now = time.monotonic()
        if now - told >= _PROGRESS_S:
            told = now
            pace = virtual / (now - began)
            print(
                f"{done} of {total} seeds, {broken} violations, {pace:.0f} virtual s per s",
                file=sys.stderr,
                flush=True,
            )
    real = time.monotonic() - began
    print(f"sim: seeds={done} violations={broken} virtual_s={virtual:.0f} real_s={real:.1f}", flush=True)
    return 1 if broken else 0


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="sim", description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seeds", type=int, help="how many, from --seed on (default 100)")
    parser.add_argument("--seed", type=int, help="the first; alone: this one only, with its trace hash")
    parser.add_argument("--plan", metavar="FILE", help="run the plans of this file instead (- is stdin)")
    parser.add_argument("--sabotage", default="", metavar="NAME", help="plant a bug; it must be found")
    parser.add_argument("--jobs", type=int, default=1, help="processes (default 1)")
    parser.add_argument("--keep-going", action="store_true", help="do not stop at the first failing seed")
    parser.add_argument("--no-shrink", action="store_true", help="print a failing schedule as it is")
    parser.add_argument(
        "--timeline", action="store_true", help="print a single seed's timeline though it passed"
    )
    parser.add_argument("--list", action="store_true", help="the names of the planted bugs, one a line")
    options = parser.parse_args(arguments)
    options.seed_given = options.seed is not None
    options.seed = 1 if options.seed is None else options.seed
    return options


def _run_seeds(seeds: range, sabotage: str, jobs: int) -> Iterator[tuple[Plan, Outcome]]:
    if jobs <= 1 or len(seeds) == 1:
        yield from ((make_plan(seed), run_seed(seed, sabotage)) for seed in seeds)
        return
    with _pool(jobs) as pool:
        for outcome in pool.imap_unordered(partial(run_seed, sabotage=sabotage), seeds, _CHUNK):
            yield make_plan(outcome.seed), outcome


def _run_plans(plans: list[Plan], sabotage: str, jobs: int) -> Iterator[tuple[Plan, Outcome]]:
    if jobs <= 1 or len(plans) == 1:
        yield from ((plan, run_plan(plan, sabotage)) for plan in plans)
        return
    with _pool(jobs) as pool:
        yield from zip(plans, pool.imap(partial(run_plan, sabotage=sabotage), plans), strict=True)


def _pool(jobs: int) -> Pool:
    return multiprocessing.get_context("spawn").Pool(jobs, quiet)


def _text_of(name: str) -> str:
    return sys.stdin.read() if name == "-" else Path(name).read_text()


def _explain(plan: Plan, outcome: Outcome, sabotage: Sabotage, *, shrinking: bool, drawn: bool) -> None:
    promises = {violation.promise for violation in outcome.violations}
    print(f"\nseed {outcome.seed} of {_commit()} breaks: {', '.join(sorted(promises))}")
    for violation in outcome.violations[:10]:
        print(f"  {violation}")
    if shrinking:

        def fails(smaller: Plan) -> bool:
            return any(found.promise in promises for found in run(smaller, sabotage).violations)

        small = shrink(plan, fails)
        if small != plan:
            outcome = run(small, sabotage)
            print(f"\nshrunk from {len(plan.faults)} to {len(small.faults)} faults, which break:")
            for violation in outcome.violations[:10]:
                print(f"  {violation}")
            plan = small
    print(f"\n{plan}\n\n{outcome.timeline}\n")
    extra = f" SABOTAGE={sabotage.name}" if sabotage.name else ""
    if drawn:
        print(f"repeat with: make sim SEED={outcome.seed}{extra}")
    print(f"repeat these faults with: make sim PLAN=FILE{extra}, where FILE holds the line")
    print(f"{to_line(plan)}\n", flush=True)


def _commit() -> str:
    try:
        found = subprocess.run(
            [
                "git",
                "-C",
                str(Path(__file__).resolve().parent),
                "describe",
                "--always",
                "--dirty= with changes",
            ],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "an unknown commit"
    return f"commit {found.stdout.strip()}"


if __name__ == "__main__":
    sys.exit(main())
