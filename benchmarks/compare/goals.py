"""The goals set for this release, computed from a run's figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from benchmarks.compare.document import Document, Machine
from benchmarks.compare.figures import Value, values
from benchmarks.compare.table import OURS, number

Values = Mapping[tuple[str, str], Value]


@dataclass(frozen=True, slots=True)
class Outcome:
    """``here`` in words; ``met`` is None when the run does not tell."""

    here: str
    met: bool | None


@dataclass(frozen=True, slots=True)
class Goal:
    """What was to be reached."""

    workload: str
    goal: str
    judge: Callable[[Document, Values], Outcome]


_UNKNOWN = Outcome("not measured in this run", None)


def _times(key: str, peer: str, least: float) -> Callable[[Document, Values], Outcome]:
    """At least so many times the peer's figure; more is better."""

    def judge(document: Document, found: Values) -> Outcome:
        ours, theirs = found.get((OURS, key)), found.get((peer, key))
        if ours is None or theirs is None:
            return _UNKNOWN
        share = ours.value / theirs.value
        return Outcome(
            f"{number(share)} times ({number(ours.value)} : {number(theirs.value)})", share >= least
        )

    return judge


def _at_most(key: str, peer: str) -> Callable[[Document, Values], Outcome]:
    """No more than the peer's figure; less is better."""

    def judge(document: Document, found: Values) -> Outcome:
        ours, theirs = found.get((OURS, key)), found.get((peer, key))
        if ours is None or theirs is None:
            return _UNKNOWN
        return Outcome(
            f"{number(ours.value / theirs.value)} times ({number(ours.value)} : {number(theirs.value)})",
            ours.value <= theirs.value,
        )

    return judge


def _fsynced_peers(key: str) -> Callable[[Document, Values], Outcome]:
    """No more than any peer that fsyncs before it acknowledges."""

    def judge(document: Document, found: Values) -> Outcome:
        ours = found.get((OURS, key))
        theirs = {
            system.title: found[name, key].value
            for name, system in document.systems.items()
            if name != OURS and system.fsynced and (name, key) in found
        }
        if ours is None or not theirs:
            return _UNKNOWN
        best = min(theirs, key=lambda title: theirs[title])
        return Outcome(
            f"{number(ours.value)} ms; best of them {best}, {number(theirs[best])} ms",
            ours.value <= theirs[best],
        )

    return judge


def _limit(key: str, most: float) -> Callable[[Document, Values], Outcome]:
    def judge(document: Document, found: Values) -> Outcome:
        ours = found.get((OURS, key))
        return Outcome(f"{number(ours.value)} ms", ours.value <= most) if ours else _UNKNOWN

    return judge


def _share(key: str, of: Callable[[Machine], float], least: float) -> Callable[[Document, Values], Outcome]:
    """At least this share of what the machine gives, in MB/s."""

    def judge(document: Document, found: Values) -> Outcome:
        ours, whole = found.get((OURS, key)), of(document.machine)
        if ours is None:
            return _UNKNOWN
        here = f"{ours.value / whole:.0%} ({number(ours.value)} of {number(whole)} MB/s)"
        return Outcome(here, ours.value / whole >= least)

    return judge


_PUBLISH_100 = "pipelined publish, 100 B"
_PUBLISH_1K = "pipelined publish, 1 KiB"
_REPLAY_100 = "replay by batches, 100 B"
_REPLAY_1K = "replay, 1 KiB"
_FAILOVER = "failover"

GOALS = (
    Goal(_PUBLISH_100, "≥ 10 times NATS JetStream (no fsync)", _times("pipelined-100", "nats", 10)),
    Goal(_PUBLISH_100, "≥ 2 times RabbitMQ stream (no fsync)", _times("pipelined-100", "rabbitmq-stream", 2)),
    Goal(
        _PUBLISH_100,
        "≥ 2 times RabbitMQ stream in sub-entries",
        _times("pipelined-100", "rabbitmq-stream-sub", 2),
    ),
    Goal(_PUBLISH_100, "≥ 2 times Kafka acks=all (no fsync)", _times("pipelined-100", "kafka", 2)),
    Goal(_PUBLISH_1K, "≥ 1.5 times RabbitMQ stream", _times("pipelined-1k", "rabbitmq-stream", 1.5)),
    Goal(
        _PUBLISH_1K,
        "≥ 1.5 times RabbitMQ stream in sub-entries",
        _times("pipelined-1k", "rabbitmq-stream-sub", 1.5),
    ),
    Goal(_PUBLISH_1K, "≥ 1.5 times Kafka acks=all", _times("pipelined-1k", "kafka", 1.5)),
    Goal(
        _PUBLISH_1K,
        "≥ 60 % of bare fdatasync bandwidth ÷ 3",
        _share("pipelined-1k", lambda machine: machine.sync_megabytes / 3, 0.6),
    ),
    Goal("sequential publish, p50", "≤ RabbitMQ quorum queue", _at_most("sequential", "rabbitmq-quorum")),
    Goal("sequential publish, p50", "≤ etcd", _at_most("sequential", "etcd")),
    Goal(_REPLAY_100, "≥ 1.5 times RabbitMQ stream", _times("replay-100", "rabbitmq-stream", 1.5)),
    Goal(
        _REPLAY_100,
        "≥ 1.5 times RabbitMQ stream in sub-entries",
        _times("replay-100", "rabbitmq-stream-sub", 1.5),
    ),
    Goal(_REPLAY_100, "≥ 4 times NATS JetStream", _times("replay-100", "nats", 4)),
    Goal(_REPLAY_1K, "≥ 1.5 times RabbitMQ stream", _times("replay-1k", "rabbitmq-stream", 1.5)),
    Goal(
        _REPLAY_1K,
        "≥ 1.5 times RabbitMQ stream in sub-entries",
        _times("replay-1k", "rabbitmq-stream-sub", 1.5),
    ),
    Goal(
        _REPLAY_1K,
        "≥ 60 % of a gRPC stream that only copies",
        _share("replay-1k", lambda machine: machine.stream_megabytes, 0.6),
    ),
    Goal("publish to delivery at half load, p99", "≤ every peer with fsync", _fsynced_peers("half.p99")),
    Goal(_FAILOVER, "median ≤ 200 ms", _limit("failover", 200)),
    Goal(_FAILOVER, "worst ≤ 500 ms", _limit("failover.worst", 500)),
    Goal("processor time per million, 100 B", "≤ RabbitMQ stream", _at_most("cpu", "rabbitmq-stream")),
    Goal(
        "processor time per million, 100 B",
        "≤ RabbitMQ stream in sub-entries",
        _at_most("cpu", "rabbitmq-stream-sub"),
    ),
)


def goals(document: Document) -> list[str]:
    """Lines of the table of goals, in Markdown."""
    found = values(document)
    lines = ["### Goals", "", "| workload | goal | here | |", "|---|---|---|---|"]
    for goal in GOALS:
        outcome = goal.judge(document, found)
        verdict = {True: "met", False: "**NOT MET**", None: "-"}[outcome.met]
        lines.append(f"| {goal.workload} | {goal.goal} | {outcome.here} | {verdict} |")
    return [*lines, "", "Growth and the silent partition are not part of this run.", ""]
