"""What a group wants settled, piece by piece: receipts, portions of partitions, charges of records."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from holdfast.cluster.delivery.assignment import PartitionKey
from holdfast.cluster.delivery.runs import Range, runs_of
from holdfast.errors import HoldfastError
from holdfast.storage import bits
from holdfast.v1 import log_pb2


class Receipt:
    """Calls ``done`` once everything it was put on is durable, or will never be.

    Whoever makes it holds one part itself, and gives it back with ``end`` when nothing will be added.

    Attributes:
        lost: what of it will never be: partition, first and last offset, and why.
    """

    __slots__ = ("_done", "_parts", "lost")

    def __init__(self, done: Callable[[Receipt], None]) -> None:
        self.lost: list[tuple[PartitionKey, int, int, HoldfastError]] = []
        self._done = done
        self._parts = 1

    def add(self) -> None:
        self._parts += 1

    def end(self) -> None:
        self._parts -= 1
        if not self._parts:
            self._done(self)


@dataclass(eq=False, slots=True)
class Charge:
    """What one record of a group is charged with, or set aside for."""

    key: PartitionKey
    offset: int
    cause: log_pb2.RetryCause
    lane: int
    error: str = ""
    delay_ms: int | None = None
    receipt: Receipt | None = None
    #: When the operation was made: what told its row from another, and whether a dead letter went with it.
    before: object = None
    dead: bool = False

    def end(self) -> None:
        """It is durable, or not wanted any more."""
        if self.receipt is not None:
            self.receipt.end()
            self.receipt = None

    def lose(self, error: HoldfastError) -> None:
        """It will never be made."""
        if self.receipt is not None:
            self.receipt.lost.append((self.key, self.offset, self.offset, error))
        self.end()


@dataclass(slots=True)
class Portion:
    """What is settled in one partition: everything below ``floor``, and ``chunks`` of bits above."""

    floor: int | None = None
    chunks: dict[int, int] = field(default_factory=dict)
    receipts: list[Receipt] = field(default_factory=list)

    def merge(self, other: Portion) -> None:
        """``other`` is wanted as well."""
        if other.floor is not None:
            self.floor = other.floor if self.floor is None else max(self.floor, other.floor)
        for chunk, value in other.chunks.items():
            self.chunks[chunk] = self.chunks.get(chunk, 0) | value
        self.receipts += other.receipts

    def take(self, limit: int) -> tuple[Portion, int]:
        """Up to ``limit`` runs of it, and how many those are; with the last of it go its receipts."""
        self._drop_covered()
        taken = Portion(self.floor)
        self.floor = None
        runs = 0
        for chunk in sorted(self.chunks):
            value, part, base = self.chunks[chunk], 0, chunk * bits.CHUNK_BITS
            for first, end in bits.ranges_of(chunk, value):
                if runs == limit:
                    break
                runs += 1
                part |= bits.span(first - base, end - base)
            if part:
                taken.chunks[chunk] = part
            if part != value:
                self.chunks[chunk] = value & ~part
                return taken, runs
            del self.chunks[chunk]
        taken.receipts, self.receipts = self.receipts, []
        return taken, runs

    def ranges(self) -> Iterator[Range]:
        """Ascending; neighbours may touch."""
        for chunk in sorted(self.chunks):
            yield from bits.ranges_of(chunk, self.chunks[chunk])

    def write(self, flow: log_pb2.FlowSettle) -> None:
        """Into an operation."""
        if self.floor is not None:
            flow.floor = self.floor
        base, runs = runs_of(self.ranges())
        if runs:
            flow.base = base
            flow.runs.extend(runs)

    def end(self) -> None:
        """It is durable, or not wanted any more."""
        receipts, self.receipts = self.receipts, []
        for receipt in receipts:
            receipt.end()

    def lose(self, key: PartitionKey, error: HoldfastError) -> None:
        """It will never be durable."""
        ranges = [*([(0, self.floor)] if self.floor else []), *self.ranges()]
        if ranges:
            for receipt in self.receipts:
                receipt.lost.append((key, ranges[0][0], ranges[-1][1] - 1, error))
        self.end()

    def _drop_covered(self) -> None:
        """The floor says it already."""
        if self.floor is None:
            return
        chunk, bit = divmod(self.floor, bits.CHUNK_BITS)
        for each in [each for each in self.chunks if each < chunk]:
            del self.chunks[each]
        if chunk in self.chunks:
            self.chunks[chunk] &= ~bits.span(0, bit)
            if not self.chunks[chunk]:
                del self.chunks[chunk]
