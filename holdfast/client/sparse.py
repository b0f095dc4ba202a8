"""Records picked from a partition, as members of groups are handed them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import repeat

from holdfast.client.handed import Place, offsets_of
from holdfast.client.types import Acknowledger, Record
from holdfast.errors import InternalError
from holdfast.records import decode_batch
from holdfast.v1 import bus_pb2


def sparse_records(place: Place, sparse: bus_pb2.SparseBatch, subscription: Acknowledger) -> list[Record]:
    """The records of a SparseBatch, by ascending offset.

    Raises:
        InternalError: its columns differ in length.
        HoldfastError: the batch does not decode.
    """
    columns = decode_batch(sparse.batch)
    offsets = list(offsets_of(sparse.base, sparse.runs))
    if len(offsets) != columns.count:
        raise InternalError(f"a delivery of {columns.count} records for {len(offsets)} offsets")
    keys: Iterator[bytes | None] = (key or None for key in columns.keys) if columns.has_keys else repeat(None)
    return [
        Record(*place, *fields)
        for fields in zip(
            offsets,
            keys,
            columns.values,
            columns.timestamps_us,
            _append_times(sparse, len(offsets)),
            columns.headers if columns.has_headers else repeat(()),
            repeat(subscription),
            _attempts(sparse, len(offsets)),
            strict=False,  # some columns are one value for all
        )
    ]


def _append_times(sparse: bus_pb2.SparseBatch, count: int) -> Sequence[int]:
    base, deltas = sparse.append_time_us, sparse.append_time_deltas_us
    if not deltas:
        return [base] * count
    if len(deltas) != count:
        raise InternalError(f"a delivery of {count} records with {len(deltas)} append times")
    return [base + delta for delta in deltas]


def _attempts(sparse: bus_pb2.SparseBatch, count: int) -> Sequence[int]:
    charged = sparse.attempts
    if not charged:
        return [1] * count
    if len(charged) != count:
        raise InternalError(f"a delivery of {count} records with {len(charged)} counts of attempts")
    return [n + 1 for n in charged]
