"""Idempotence: is a producer's batch new, a retry, or out of order?

Pure decisions over a producer's row; sequences count records per producer and
partition, from 0 in each epoch.
"""

from __future__ import annotations

from typing import NamedTuple

from holdfast.errors import InvalidArgumentError, ProducerFencedError, SequenceGapError
from holdfast.storage.producers import ProducerRow, pack_next

MAX_SEQUENCE = (1 << 63) - 1


class Duplicate(NamedTuple):
    """Where the batch was stored the first time; -1 and 0 when that is forgotten."""

    base_offset: int
    append_time_us: int


def check_sequence(row: ProducerRow | None, epoch: int, base: int, count: int) -> Duplicate | None:
    """None when the batch is the next one; where it lies when it was stored before.

    Raises:
        ProducerFencedError: a higher epoch has written already.
        SequenceGapError: it is neither next nor wholly stored.
        InvalidArgumentError: the sequence is beyond 63 bits.
    """
    end = base + count
    if end > MAX_SEQUENCE:
        raise InvalidArgumentError("sequence beyond 63 bits", metadata={"field": "base_sequence"})
    if row is None or epoch > row.epoch:
        if base != 0:
            raise _gap(base, 0)
        return None
    if epoch < row.epoch:
        raise ProducerFencedError(
            f"epoch {epoch} is over: a producer of the same id writes with epoch {row.epoch}",
            metadata={"epoch": str(row.epoch)},
        )
    expected = row.last_sequence + 1
    if base == expected:
        return None
    if end > expected:
        raise _gap(base, expected)
    for first, stored, base_offset, append_time_us in row.recent:
        # A retry may cut what was one batch into several.
        if first <= base and end <= first + stored:
            return Duplicate(base_offset + base - first, append_time_us)
    return Duplicate(-1, 0)


def advance(
    row: ProducerRow | None, epoch: int, base: int, count: int, base_offset: int, append_time_us: int
) -> ProducerRow:
    """The producer's row after its batch was stored at ``base_offset``."""
    known = b"" if row is None or row.epoch != epoch else row.packed
    packed = pack_next(known, base, count, base_offset, append_time_us)
    return ProducerRow(epoch, base + count - 1, append_time_us, packed)


def _gap(base: int, expected: int) -> SequenceGapError:
    return SequenceGapError(
        f"sequence {base} where {expected} is next: it skips records, or repeats a part of what is stored",
        metadata={"expected": str(expected)},
    )
