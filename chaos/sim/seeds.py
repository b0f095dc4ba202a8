"""One seed, by name: what a process of a pool is told to run."""

from __future__ import annotations

from holdfast.chaos.sim.plan import make_plan
from holdfast.chaos.sim.run import Outcome, run
from holdfast.chaos.sim.sabotage import NONE, SABOTAGES


def run_seed(seed: int, sabotage: str = "") -> Outcome:
    """Run one seed with the planted bug of this name, if any."""
    return run(make_plan(seed), SABOTAGES[sabotage] if sabotage else NONE)
