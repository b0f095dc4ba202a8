"""One run, by what is sent to a process of a pool: a seed or a plan, and the name of a planted bug."""

from __future__ import annotations

import logging

from holdfast.chaos.sim.plan import Plan, make_plan
from holdfast.chaos.sim.run import Outcome, run
from holdfast.chaos.sim.sabotage import NONE, SABOTAGES


def run_seed(seed: int, sabotage: str = "") -> Outcome:
    """Run one seed with the planted bug of this name, if any."""
    return run_plan(make_plan(seed), sabotage)


def run_plan(plan: Plan, sabotage: str = "") -> Outcome:
    """Run one plan with the planted bug of this name, if any."""
    return run(plan, SABOTAGES[sabotage] if sabotage else NONE)


def quiet() -> None:
    """What simulated brokers log is not for whoever runs them: the timeline is."""
    logging.getLogger().addHandler(logging.NullHandler())
