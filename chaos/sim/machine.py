"""A state machine small enough to be checked by eye: it keeps every value it is given."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from holdfast.cluster.commands import decode_entry, encode_op
from holdfast.storage.port import Reader, Table, Writer
from holdfast.v1 import log_pb2

_DIGEST = b"sim.digest"


def record_op(value: bytes) -> bytes:
    """An operation that carries ``value``."""
    op = log_pb2.Op(append=log_pb2.AppendOp(topic_id=1))
    op.append.batches.add(count=1, length=len(value))
    return encode_op(op, [value])


@dataclass
class LedgerApplied:
    results: list[log_pb2.OpResult] = field(default_factory=list)
    touched: set[tuple[int, int]] = field(default_factory=set)
    topics_changed: bool = False
    groups_changed: set[str] = field(default_factory=set)


class LedgerMachine:
    """Stores (log index, position) -> value, and a digest chained over all of it."""

    def apply(self, w: Writer, index: int, entry: bytes) -> LedgerApplied:
        time_us, ops = decode_entry(entry)
        applied = LedgerApplied()
        digest = w.get(Table.GROUPS, _DIGEST) or b""
        for at, op in enumerate(ops):
            value = entry[op.blob_start : op.blob_start + op.blob_length]
            key = index.to_bytes(8, "big") + at.to_bytes(4, "big")
            w.put(Table.INDEX, key, time_us.to_bytes(8, "big") + value)
            digest = hashlib.sha256(digest + key + value).digest()
            applied.results.append(log_pb2.OpResult())
            applied.touched.add((1, 0))
        w.put(Table.GROUPS, _DIGEST, digest)
        return applied

    def reset(self) -> None:
        return

    @staticmethod
    def values(r: Reader) -> list[bytes]:
        """Every value applied, in order."""
        return [value[8:] for _, value in r.scan(Table.INDEX)]

    @staticmethod
    def times(r: Reader) -> list[int]:
        """The stamped time of every value, microseconds."""
        return [int.from_bytes(value[:8], "big") for _, value in r.scan(Table.INDEX)]

    @staticmethod
    def digest(r: Reader) -> bytes:
        return r.get(Table.GROUPS, _DIGEST) or b""
