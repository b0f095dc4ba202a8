"""docs/guarantees.md names only what exists, and all that it has to."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from holdfast.chaos.checker.promises import PROMISES
from holdfast.chaos.drills.catalog import DRILLS, ORDER
from holdfast.chaos.sim import promises as simulator
from holdfast.chaos.sim.plan import KINDS
from holdfast.chaos.sim.sabotage import SABOTAGES
from holdfast.rpc.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "guarantees.md").read_text()
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
PATHS = sorted(set(re.findall(r"`((?:tests|chaos|cluster|storage|rpc|holdfast|docs)/[^`\s]+)`", PAGE)))


@pytest.mark.parametrize("named", PATHS)
def test_a_path_exists(named: str) -> None:
    path, _, test = named.partition("::")
    assert (ROOT / path).exists(), f"{path} does not exist"
    if test:
        assert re.search(rf"def {test}\(", (ROOT / path).read_text()), f"{path} has no {test}"


def test_the_page_names_tests_at_all() -> None:
    assert len([path for path in PATHS if "::" in path]) > 40


def test_every_promise_that_is_judged_is_on_the_page() -> None:
    assert set(PROMISES) | set(simulator.PROMISES) == set(re.findall(r"\*([a-z]+(?:-[a-z]+)+)\*", PAGE))


def test_every_drill_is_on_the_page() -> None:
    named = set(re.findall(r"make drill NAME=([a-z-]+)", PAGE))
    assert set(DRILLS) <= named
    assert named <= set(DRILLS) | set(ORDER)


def test_every_fault_of_the_simulator_is_on_the_page() -> None:
    named = {
        kind for kinds in re.findall(r"sim ((?:`[a-z_]+`(?:, )?)+)", PAGE) for kind in kinds.split("`")[1::2]
    }
    assert named == set(KINDS)


def test_planted_bugs_named_exist() -> None:
    assert set(re.findall(r"SABOTAGE=([a-z_]+)", PAGE)) <= set(SABOTAGES)


def test_targets_named_exist() -> None:
    assert set(re.findall(r"`make ([a-z-]+)", PAGE)) <= TARGETS | {"drill", "drills"}


def test_settings_named_exist() -> None:
    for section, name in re.findall(r"`(maintenance|raft|limits|telemetry)\.([a-z_]+)`", PAGE):
        assert hasattr(getattr(Settings(), section), name)


def test_readers_are_sent_to_the_page() -> None:
    assert "docs/guarantees.md" in (ROOT / "README.md").read_text()
    assert "guarantees.md" in (ROOT / "docs" / "concepts.md").read_text()
