"""Runs one drill from the first broker's start to the verdict."""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import grpc

from holdfast.chaos.checker import Tally, judge
from holdfast.chaos.checker import history as told
from holdfast.chaos.checker.history import History, Violation
from holdfast.chaos.drills.load import Load
from holdfast.chaos.drills.rest import read_replicas
from holdfast.chaos.drills.scene import Drill, Scene, Target
from holdfast.chaos.drills.watch import Watch
from holdfast.errors import HoldfastError

_WARM_UP_SECONDS = 1.0
_AFTER_SECONDS = 0.5
_DRAIN_SECONDS = 30.0


class EndedTarget(Target, Protocol):
    """A target that can be ended as a whole."""

    async def end(self) -> None:
        """End all brokers, whatever state they are in."""


@dataclass(slots=True)
class Outcome:
    """What a run showed.

    Attributes:
        skipped: why it was not run; empty: it was.
        seen: who led when, see ``Watch``.
        logs: (time, node, text).
        took: seconds, all in all.
        facts: what the drill itself counted.
    """

    name: str
    skipped: str = ""
    tally: Tally = field(default_factory=lambda: Tally(acked=0, lost=0, duplicated=0, unknown=0, failed=0))
    recovery_ms: float = 0.0
    violations: list[Violation] = field(default_factory=list)
    history: History = field(default_factory=History)
    seen: list[tuple[float, str, int]] = field(default_factory=list)
    logs: list[tuple[float, str, str]] = field(default_factory=list)
    nodes: tuple[str, ...] = ()
    took: float = 0.0
    facts: dict[str, object] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        return not (self.violations or self.tally.lost or self.tally.duplicated)

    def line(self) -> str:
        """The result, one line."""
        if self.skipped:
            return f"drill {self.name}: skipped: {self.skipped}"
        tally = self.tally
        line = (
            f"drill {self.name}: acked={tally.acked} lost={tally.lost} duplicated={tally.duplicated} "
            f"unknown={tally.unknown} recovery_ms={self.recovery_ms:.0f}"
            + "".join(f" {name}={value}" for name, value in self.facts.items())
        )
        # Nothing lost is not all: whoever reads this line alone must not take a failure for a success.
        return line if self.passed else f"{line} violations={len(self.violations)}"


async def perform(
    drill: Drill, target: EndedTarget, directory: Path, say: Callable[[str], None], *, seed: int = 0
) -> Outcome:
    """Run a drill on a target that has not been started yet.

    Whatever fails on the way is a violation of the outcome: a drill that
    cannot be judged has not passed.
    """
    began = time.monotonic()
    outcome = Outcome(drill.name, nodes=tuple(target.nodes))
    outcome.skipped = drill.unable(target)
    if outcome.skipped:
        return outcome
    scene: Scene | None = None
    try:
        async with drill.around(target):
            try:
                for node in target.nodes:
                    await target.start(node)
                leader = await target.leader()
                for node in target.nodes:
                    # One that could not start says why, which its clients would not know.
                    await target.until_serving(node)
                say(f"{leader} leads")
                load = Load(
                    target.endpoints, outcome.history, drill.plan, discover=target.discover, seed=seed
                )
                scene = Scene(target, load, outcome.history, directory, say)
                watch = Watch(target.endpoints, outcome.history, load.now)
                outcome.seen = watch.seen
                watch.start()
                try:
                    await load.start()
                    async with asyncio.timeout(drill.limit_seconds):
                        await _play(drill, scene)
                finally:
                    await scene.noted()
                    await watch.stop()
                    await load.close()
            finally:
                await target.end()
    except (HoldfastError, TimeoutError, OSError, grpc.RpcError, AssertionError) as error:
        what = traceback.format_exc(limit=-4)
        say(f"failed: {error!r}\n{what}")
        at = scene.now() if scene is not None else -1.0
        outcome.violations.append(Violation("drill-failed", f"{type(error).__name__}: {error}", at))
    if scene is not None:
        outcome.violations += scene.violations
        outcome.facts = scene.facts
        outcome.logs = scene.logs
        outcome.recovery_ms = scene.recovery_ms()
    found, outcome.tally = judge(outcome.history)
    outcome.violations += found
    outcome.took = time.monotonic() - began
    return outcome


async def _play(drill: Drill, scene: Scene) -> None:
    await scene.until_acked()
    await scene.settle(_WARM_UP_SECONDS)
    try:
        await drill.run(scene)
    finally:
        scene.note_logs()
        await drill.heal(scene)
        await scene.target.heal()
    for node in scene.target.nodes:
        await scene.target.until_serving(node)
    await scene.until_acked()
    await scene.settle(_AFTER_SECONDS)
    scene.say("all healthy; waiting for what is under way")
    await scene.load.stop_publishing()
    await _drained(scene)
    await audit(scene)
    await read_replicas(scene.target, scene.load.plan.topic, scene.history)
    scene.say("every replica has been read")


async def audit(scene: Scene) -> None:
    """Read everything back from every node, linearizably; whole again, each has to give it."""
    for node in scene.target.nodes:
        for partition in range(scene.load.plan.partitions):
            read = await scene.load.read(node, partition, timeout=10.0, client="auditor")
            scene.require(
                read.outcome is told.Outcome.OK,
                "all-is-read-back",
                f"partition {partition} could not be read from {node}: {read.error}",
            )


async def _drained(scene: Scene) -> None:
    """Wait until the group has durably acknowledged everything that was acknowledged to publishers."""
    load = scene.load
    deadline = time.monotonic() + _DRAIN_SECONDS
    while behind := load.behind():
        if time.monotonic() > deadline:
            scene.require(
                False,
                "group-reaches-end",
                f"it did not in {_DRAIN_SECONDS:g} s: (partition, at, end) {behind}",
            )
            return
        await asyncio.sleep(0.02)
