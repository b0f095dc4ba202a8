"""Bounds of delivery; every one has a default that suits a small cluster."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DeliverySettings:
    """How much a broker holds and sends on behalf of readers and consumers."""

    #: Records of a partition handed out beyond its gap-free acked prefix; at the
    #: bound that partition's delivery pauses until the prefix moves.
    max_unacked: int = 50_000
    #: Members of one group, groups with members, and members on this node.
    max_members_per_group: int = 1_000
    max_groups: int = 10_000
    max_sessions: int = 2_000
    #: Topics one member may name, and partitions one group may read.
    max_topics_per_member: int = 64
    max_partitions_per_group: int = 16_384
    #: Credits a member may hold; more is refused, so that a count cannot run away.
    max_credits: int = 10_000_000
    #: Payload of one response: what a reader gets by default, and may ask for.
    default_message_bytes: int = 1 << 20
    max_message_bytes: int = 4 << 20
    #: Payload on its way to all readers of this node, to those on one connection,
    #: and how long one may stand still while others wait for room, in seconds.
    max_outgoing_bytes: int = 48 << 20
    max_outgoing_bytes_per_peer: int = 16 << 20
    stalled_after: float = 10.0
    #: One message of a subscription's client.
    max_request_bytes: int = 8 << 20
    #: The default for decoded records, which take the event loop about 3 us each.
    decoded_message_bytes: int = 256 << 10
    #: Index rows looked at in one read transaction, so that a reader that skips
    #: a long stretch lets others run.
    max_rows_per_read: int = 4_096
    #: How long acks wait for company before they are proposed, in seconds.
    commit_delay: float = 0.005
    #: Partitions in one CommitOffsetsOp.
    max_offsets_per_commit: int = 1_024
    #: How long a batch waits for credits enough to be sent whole, in seconds; a
    #: client that grants one record at a time would otherwise be sent the same
    #: batch once per record.
    credit_linger: float = 0.010
    #: A reader that waits looks again this often, in seconds: appends wake it,
    #: the deletion of its topic and an installed snapshot do not.
    idle_check: float = 1.0
    #: How long a replay on a node that has just started waits for a leader to
    #: say how much of the log is committed, in seconds.
    restart_wait: float = 2.0
    #: How long a reader that met a damaged batch waits until it is fetched from another node, in seconds.
    repair_wait: float = 2.0
    #: Decoded batches kept for members that are handed single records of them.
    batch_cache_bytes: int = 32 << 20
    #: Until a member has been told how often to say something, the broker does so this often, in seconds.
    first_heartbeat: float = 1.0
    #: Concurrent Replay calls on this node.
    max_replays: int = 1_000
    #: Bound of one proposal or barrier made on behalf of a session, in seconds.
    call_timeout: float = 5.0
    #: How long what a member was handed stays with it after its stream has ended, in seconds.
    rejoin: float = 1.5
    #: How long a member may take to end what runs in a partition that moves, in seconds.
    handover: float = 30.0
