"""What goes to a member in one message: stored batches as they are, and batches cut from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from holdfast.cluster.delivery.batch_cache import Columns
from holdfast.cluster.delivery.flow import Flow
from holdfast.cluster.delivery.reading import Slice
from holdfast.cluster.delivery.runs import Range, ranges_from, runs_of
from holdfast.records import encode_batch

#: A part of a batch larger than this, in bytes, that is less than half of it is cut out.
LARGE_BATCH = 16 << 10


class Picked(NamedTuple):
    """A ``SparseBatch``: some records of a partition, as a batch of exactly these."""

    flow: Flow
    offsets: list[int]  # ascending
    append_time_us: int
    append_deltas_us: list[int]  # one per record; empty: all 0
    attempts: list[int]  # charged so far, one per record; empty: none
    batch: bytes  # a serialised RecordBatch

    def runs(self) -> tuple[int, list[int]]:
        """``base`` and ``runs`` of the message."""
        return runs_of(ranges_from(self.offsets))


@dataclass(slots=True)
class Parcel:
    """One delivery. A flow has stored batches in it or a cut one, never both.

    Without records it says: nothing was found yet, there is more to look through;
    let others run, then ask again.
    """

    #: Of all records in it; 0: they are leased to nobody.
    lease: int = 0
    whole: list[tuple[Flow, list[Slice]]] = field(default_factory=list)
    sparse: list[Picked] = field(default_factory=list)
    records: int = 0
    bytes: int = 0
    #: ``at_most_once``: settled by this hand-out. To be proposed; nothing is sent before that is durable.
    spent: list[tuple[Flow, Range]] = field(default_factory=list)

    def add_whole(self, flow: Flow, slices: list[Slice]) -> None:
        self.whole.append((flow, slices))
        self.records += sum(it.records for it in slices)
        self.bytes += sum(len(it.data) for it in slices)

    def add_sparse(self, picked: Picked) -> None:
        self.sparse.append(picked)
        self.records += len(picked.offsets)
        self.bytes += len(picked.batch)


Pick = tuple[int, Columns]  # an offset, and the batch that holds it


def cut(flow: Flow, picks: list[Pick]) -> Picked:
    """A batch of these records of a flow; sorts them by offset."""
    picks.sort(key=_offset)
    offsets = [offset for offset, _ in picks]
    places = [(columns, offset - columns.base) for offset, columns in picks]
    values = [columns.values[i] for columns, i in places]
    keyed = any(columns.keys is not None for _, columns in picks)
    keys = [b"" if columns.keys is None else columns.keys[i] for columns, i in places] if keyed else None
    headed = any(columns.headers is not None for _, columns in picks)
    headers = (
        [None if columns.headers is None else columns.headers[i] for columns, i in places] if headed else None
    )
    times = [columns.batch.timestamps_us[i] for columns, i in places]
    first = picks[0][1].row.append_time_us
    deltas = [columns.row.append_time_us - first for _, columns in picks]
    attempts: list[int] = []
    if len(flow.retrying):
        rows = [flow.retrying.get(offset) for offset in offsets]
        attempts = [0 if row is None else row.attempts for row in rows]
    return Picked(
        flow,
        offsets,
        first,
        deltas if any(deltas) else [],
        attempts if any(attempts) else [],
        encode_batch(values, keys, times, headers),
    )


def as_slices(picks: list[Pick], stored: Mapping[Columns, bytes]) -> list[Slice]:
    """The same as stored batches, one for each run of records: for clients that know nothing else."""
    picks.sort(key=_offset)
    slices: list[Slice] = []
    for offset, columns in picks:
        if slices and slices[-1].row is columns.row and slices[-1].last + 1 == offset:
            last = slices[-1]
            slices[-1] = Slice(last.row, last.first, offset, last.data)
        else:
            slices.append(Slice(columns.row, offset, offset, stored[columns]))
    return slices


def is_small_part(it: Slice) -> bool:
    """It is worth cutting out: the rest of the batch would go along for nothing."""
    return it.row.length > LARGE_BATCH and 2 * it.records < it.row.count


def _offset(pick: Pick) -> int:
    return pick[0]
