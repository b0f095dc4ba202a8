"""What a member is sent next: nothing else decides it.

Of each of its flows, by turns: what failed and is due, then what became free,
then what has not been read. Records that a member died of travel alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from holdfast.cluster.delivery.assignment import PartitionKey
from holdfast.cluster.delivery.batch_cache import BatchCache
from holdfast.cluster.delivery.deep_flow import DeepFlow
from holdfast.cluster.delivery.flow import Flow
from holdfast.cluster.delivery.hand_out import Delivering, HandOut
from holdfast.cluster.delivery.key_flow import KeyFlow
from holdfast.cluster.delivery.leases import Holder
from holdfast.cluster.delivery.parcels import Parcel
from holdfast.cluster.delivery.pool_flow import PoolFlow
from holdfast.cluster.delivery.runs import Range
from holdfast.cluster.group_definition import Definition, Ordering
from holdfast.storage import partitions
from holdfast.storage.port import Reader


def open_flow(key: PartitionKey, topic: str, definition: Definition) -> Flow:
    """An empty flow of a group of this definition; ``load`` fills it."""
    if definition.ordering == Ordering.KEY:
        return KeyFlow(key, topic, definition)
    if definition.ordering == Ordering.NONE:
        return PoolFlow(key, topic, definition)
    return DeepFlow(key, topic, definition)


def next_delivery(
    reader: Reader,
    group: Delivering,
    holder: Holder,
    cache: BatchCache,
    room: int,
    now: float,
    stamp_us: int,
) -> Parcel | None:
    """Choose what ``holder`` is sent next, and hand it out.

    It takes the credits, and keeps ``lease``, ``turn``, ``alone`` and ``linger_until`` of the holder,
    ``aside`` of the group, ``pause`` and ``at_end`` of the flows.

    A member that is given nothing may be waited for by others: when a suspect comes up, every member
    of the group has to be asked anew, and so when one leaves.

    Args:
        room: bytes of a message; a first record or batch goes whatever its size.
        now: monotonic seconds.
        stamp_us: the stamp clock, with which due times are compared.

    Returns:
        None: nothing, until a record is appended, settled, given back or due, credits come, or
        ``holder.linger_until`` is over. See ``Parcel`` for one without records.

    Raises:
        DamagedRowError: a batch is damaged on this node; nothing was handed out.
    """
    lingered, holder.linger_until = holder.linger_until, None
    if holder.gone or holder.credits <= 0 or (holder.alone and holder.in_flight):
        return None
    holder.alone = False
    flows = group.flows_of(holder)
    if not flows:
        return None
    hand_out = HandOut(reader, group, holder, cache, room, now, stamp_us, lingered)
    if not _stands_aside(group, holder, flows, stamp_us):
        return hand_out.from_all(flows)
    return None if holder.in_flight else hand_out.suspect(flows)


def take_up(
    reader: Reader,
    flow: Flow,
    holder: Holder,
    ranges: Iterable[Range],
    cache: BatchCache,
    stamp_us: int,
    before: Holder | None = None,
) -> list[Range]:
    """``holder`` is back on another stream and still works on these; which of them stay its own.

    See ``Flow.hold``. What lies beyond the log, or further from the floor than anything that was handed
    out, is not looked at.

    Raises:
        DamagedRowError: a batch is damaged on this node; nothing was done.
    """
    topic_id, partition = flow.key
    state = partitions.read_state(reader, topic_id, partition)
    if state is None:
        return []
    low = max(flow.window.floor, state.start_offset)
    high = min(state.next_offset, flow.window.floor + flow.max_unacked)
    clipped = [(max(first, low), min(end, high)) for first, end in ranges]
    lanes: dict[int, int] = {}
    if isinstance(flow, KeyFlow):
        for first, end in clipped:
            for offset in range(max(first, flow.cursor), end):
                if offset not in flow.window:
                    columns = cache.at(reader, topic_id, partition, offset)
                    lanes[offset] = columns.lanes[offset - columns.base]
    wanted = [(first, end) for first, end in clipped if first < end]
    return flow.hold(holder, wanted, stamp_us, lambda offset: lanes.get(offset, 0), before)


def _stands_aside(group: Delivering, holder: Holder, flows: Sequence[Flow], stamp_us: int) -> bool:
    """The member takes a suspect next, and nothing until it is idle."""
    waits = any(flow.next_suspect(holder, stamp_us) is not None for flow in flows if len(flow.retrying))
    if group.definition.ordering == Ordering.PARTITION:
        return waits  # nobody else could take it
    aside = group.aside
    if not waits:
        if aside is holder:
            group.aside = None
        return False
    if aside is None or aside.gone or (not aside.in_flight and aside.credits <= 0):
        group.aside = holder
    return group.aside is holder
