"""200 seeds nobody has tried, and the plans that failed once.

``HOLDFAST_SIM_SEED`` is the first seed; without it each test draws its own.
"""

from __future__ import annotations

import os
import random
from itertools import groupby
from pathlib import Path

import pytest

import holdfast.chaos.sim
from holdfast.chaos.sim.plan import Plan
from holdfast.chaos.sim.planfile import read_plans, to_line
from holdfast.chaos.sim.run import Outcome
from holdfast.chaos.sim.seeds import run_plan, run_seed

FRESH = 200
CHUNK = 25
FIRST_SEED = "HOLDFAST_SIM_SEED"
CORPUS = read_plans((Path(holdfast.chaos.sim.__file__).parent / "corpus.txt").read_text())
ONCE_FAILED = [
    pytest.param(list(plans), id=f"seed {seed}") for seed, plans in groupby(CORPUS, lambda plan: plan.seed)
]


def told(outcome: Outcome, repeat: str) -> str:
    violations = "\n".join(f"  {violation}" for violation in outcome.violations[:10])
    return f"seed {outcome.seed} breaks:\n{violations}\n\n{outcome.timeline}\n\nrepeat with: {repeat}"


@pytest.mark.parametrize("chunk", range(FRESH // CHUNK))
def test_fresh_seeds(chunk: int) -> None:
    given = os.environ.get(FIRST_SEED)
    first = random.SystemRandom().randrange(10**6, 10**9) if given is None else int(given) + chunk * CHUNK
    for seed in range(first, first + CHUNK):
        outcome = run_seed(seed)
        if outcome.violations:
            pytest.fail(told(outcome, f"make sim SEED={seed}"), pytrace=False)


@pytest.mark.parametrize("plans", ONCE_FAILED)
def test_what_once_failed(plans: list[Plan]) -> None:
    for plan in plans:
        outcome = run_plan(plan)
        if outcome.violations:
            repeat = f"make sim PLAN=FILE, where FILE holds the line\n{to_line(plan)}"
            pytest.fail(told(outcome, repeat), pytrace=False)
