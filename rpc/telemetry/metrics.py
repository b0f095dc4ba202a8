"""Events to instruments: one handler per event type, looked up by type."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from opentelemetry.metrics import Meter

from holdfast.cluster import events as engine
from holdfast.cluster.delivery import events as delivery
from holdfast.rpc import events as rpc

#: Seconds: from below one fsync to past an election.
_LATENCY_BUCKETS = [
    0.0001,
    0.00025,
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1,
    2.5,
    5,
]
_SIZE_BUCKETS = [float(4**n) for n in range(3, 13)]  # 64 B to 16 MiB
_COUNT_BUCKETS = [1.0, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000]

#: Instruments of what a record may be charged with.
_CAUSES = {
    "nack": "nacks",
    "expired": "expired",
    "lost": "lost",
    "rejected": "rejected",
    "parked": "parked",
}

Handler = Callable[[Any], None]


def handlers(meter: Meter) -> dict[type, Handler]:
    """The instruments, each behind the handler of the event that moves it."""

    def latency(name: str, description: str) -> Any:
        return meter.create_histogram(
            name, "s", description, explicit_bucket_boundaries_advisory=_LATENCY_BUCKETS
        )

    def counter(name: str, unit: str, description: str) -> Any:
        return meter.create_counter(name, unit, description)

    publish = latency("holdfast.publish.duration", "Publish, from request to answer")
    published = counter("holdfast.publish.records", "{record}", "Records acknowledged")
    published_bytes = counter("holdfast.publish.bytes", "By", "Request bytes acknowledged")
    batch = meter.create_histogram(
        "holdfast.publish.batch", "{record}", "Records per request",
        explicit_bucket_boundaries_advisory=_COUNT_BUCKETS,
    )  # fmt: skip
    repeats = counter("holdfast.idempotency.repeats", "{record}", "Records stored before under their keys")
    rejections = counter("holdfast.rejections", "{call}", "Calls refused, by reason")
    queued = latency("holdfast.queue.duration", "From proposal to append")
    replicate = latency("holdfast.replicate.duration", "From append to commit by a majority")
    apply = latency("holdfast.apply.duration", "Apply of one log entry")
    entry_bytes = meter.create_histogram(
        "holdfast.entry.size", "By", "Bytes of one log entry",
        explicit_bucket_boundaries_advisory=_SIZE_BUCKETS,
    )  # fmt: skip
    entry_ops = meter.create_histogram(
        "holdfast.entry.operations", "{op}", "Operations merged into one log entry",
        explicit_bucket_boundaries_advisory=_COUNT_BUCKETS,
    )  # fmt: skip
    fsync = latency("holdfast.commit.duration", "Flush of one engine turn")
    elections = counter("holdfast.elections", "{election}", "Elections and pre-votes started here")
    leaders = counter("holdfast.leader.changes", "{change}", "Leaders seen")
    links = counter("holdfast.peer.links", "{change}", "Peer links made and lost")
    frames = counter("holdfast.peer.frames.dropped", "{frame}", "Peer frames not taken")
    truncated = counter("holdfast.log.truncations", "{truncation}", "Uncommitted tails replaced")
    snapshots = counter("holdfast.snapshots", "{snapshot}", "Snapshots sent and installed")
    clock = counter("holdfast.clock.jumps", "{jump}", "Jumps of the wall clock")
    delivered = counter("holdfast.deliver.records", "{record}", "Records sent to readers")
    delivered_bytes = counter("holdfast.deliver.bytes", "By", "Batch bytes sent to readers")
    acked = latency("holdfast.ack.duration", "From the first ack collected to its commit")
    settle = {
        name: counter(f"holdfast.settle.{name}", "{record}", description)
        for name, description in (
            ("acks", "Records members are done with"),
            ("released", "Records given back untouched"),
            ("nacks", "Failures members reported"),
            ("expired", "Records of members that fell silent"),
            ("lost", "Records of members that died"),
            ("rejected", "Records members will never handle"),
            ("parked", "Records set aside"),
        )
    }
    dead = counter("holdfast.dead_letters", "{record}", "Records that became dead letters")
    handovers = counter(
        "holdfast.group.handovers", "{partition}", "Partitions taken from one member for another"
    )
    late = counter("holdfast.group.handovers.timed_out", "{partition}", "Those it was still working on")
    rebalances = counter("holdfast.group.rebalances", "{rebalance}", "Rebalances of groups")
    pauses = counter("holdfast.deliver.pauses", "{pause}", "Partitions paused at their unacked bound")
    damaged = counter("holdfast.storage.damaged", "{batch}", "Stored batches that failed their CRC")
    found = counter("holdfast.storage.damage.found", "{row}", "Stored rows found damaged, by table")
    repaired = counter("holdfast.storage.damage.repaired", "{row}", "Damaged rows fetched from another node")
    failed = counter("holdfast.storage.damage.failed", "{row}", "Damaged rows that no other node had")
    scrubbed = counter("holdfast.scrub.rows", "{row}", "Rows read by the scrub")
    scrubbed_bytes = counter("holdfast.scrub.bytes", "By", "Bytes read by the scrub")
    passes = counter("holdfast.scrub.passes", "{pass}", "Passes of the scrub over everything")
    transacted = latency("holdfast.transact.duration", "Transact, from request to answer")
    transactions = counter("holdfast.transactions", "{transaction}", "Transactions committed")
    refusals = counter("holdfast.transactions.refused", "{transaction}", "Transactions refused, by reason")
    taken = {
        "redriven": counter("holdfast.redriven", "{record}", "Dead letters published again"),
        "discarded": counter("holdfast.discarded", "{record}", "Dead letters discarded"),
    }

    def on_publish(event: rpc.PublishHandled) -> None:
        if event.reason:
            rejections.add(1, {"call": "publish", "reason": event.reason})
            return
        labels = {"topic": event.topic}
        publish.record(event.seconds, labels)
        published.add(event.records, labels)
        published_bytes.add(event.bytes, labels)
        batch.record(event.records, labels)
        if event.repeats:
            repeats.add(event.repeats, labels)

    def on_entry(event: engine.ProposalTimings) -> None:
        queued.record(event.queued_s)
        replicate.record(event.replicate_s)
        apply.record(event.apply_s)
        entry_bytes.record(event.bytes)
        entry_ops.record(event.ops)

    def on_turn(event: engine.TurnCompleted) -> None:
        if event.flushed:
            fsync.record(event.commit_s)

    def on_delivered(event: delivery.RecordsDelivered) -> None:
        labels = {"group": event.group, "topic": event.topic}
        delivered.add(event.records, labels)
        delivered_bytes.add(event.bytes, labels)

    def on_rebalance(event: delivery.GroupRebalanced) -> None:
        labels = {"group": event.group}
        rebalances.add(1, labels)
        if event.moved:
            handovers.add(event.moved, labels)
        if event.timed_out:
            late.add(event.timed_out, labels)

    def on_heard(event: delivery.RecordsHeard) -> None:
        labels = {"group": event.group}
        if event.acked:
            settle["acks"].add(event.acked, labels)
        if event.released:
            settle["released"].add(event.released, labels)

    def on_scrub(event: engine.ScrubStepped) -> None:
        scrubbed.add(event.rows)
        scrubbed_bytes.add(event.bytes)
        passes.add(event.finished)

    def on_transact(event: rpc.TransactHandled) -> None:
        if event.reason:
            refusals.add(1, {"reason": event.reason})
            return
        transactions.add(1)
        transacted.record(event.seconds)

    return {
        rpc.PublishHandled: on_publish,
        rpc.TransactHandled: on_transact,
        rpc.DeadLettersTaken: lambda e: taken[e.how].add(e.records, {"topic": e.topic}),
        engine.ProposalTimings: on_entry,
        engine.TurnCompleted: on_turn,
        engine.ProposalRejected: lambda e: rejections.add(1, {"call": "propose", "reason": e.reason}),
        engine.ElectionStarted: lambda e: elections.add(1, {"pre_vote": e.pre_vote}),
        engine.LeaderChanged: lambda e: leaders.add(1) if e.leader_id else None,
        engine.PeerLinkChanged: lambda e: links.add(1, {"peer": e.peer_id, "connected": e.connected}),
        engine.FrameDropped: lambda e: frames.add(1, {"peer": e.peer_id, "reason": e.reason}),
        engine.LogTruncated: lambda e: truncated.add(1),
        engine.SnapshotSent: lambda e: snapshots.add(1, {"direction": "sent"}),
        engine.SnapshotInstalled: lambda e: snapshots.add(1, {"direction": "installed"}),
        engine.DamageFound: lambda e: found.add(1, {"table": e.table, "repairable": e.repairable}),
        engine.RowRepaired: lambda e: repaired.add(1, {"table": e.table}),
        engine.RepairFailed: lambda e: failed.add(1, {"table": e.table}),
        engine.ScrubStepped: on_scrub,
        engine.ClockJumped: lambda e: clock.add(1),
        delivery.RecordsDelivered: on_delivered,
        delivery.OffsetsCommitted: lambda e: acked.record(e.seconds, {"group": e.group}),
        delivery.GroupRebalanced: on_rebalance,
        delivery.RecordsHeard: on_heard,
        delivery.RecordsCharged: lambda e: settle[_CAUSES[e.cause]].add(e.records, {"group": e.group}),
        delivery.RecordsDied: lambda e: dead.add(e.records, {"group": e.group}),
        delivery.DeliveryPaused: lambda e: pauses.add(1, {"group": e.group, "topic": e.topic}),
        delivery.AcksRefused: lambda e: rejections.add(1, {"call": "ack", "reason": e.reason}),
        delivery.BatchDamaged: lambda e: damaged.add(1, {"topic": e.topic}),
    }
