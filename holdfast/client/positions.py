"""Places in a topic as callers write them, and as the wire has them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Literal, TypeAlias

from holdfast.client.times import to_us
from holdfast.errors import InvalidArgumentError
from holdfast.v1 import bus_pb2

#: "earliest", "latest", an offset (of every partition read), offsets by
#: partition, or a time.
Place: TypeAlias = Literal["earliest", "latest"] | int | datetime | Mapping[int, int]
TimeBasis: TypeAlias = Literal["record", "append"]

_BASES = {"record": bus_pb2.TIME_BASIS_RECORD, "append": bus_pb2.TIME_BASIS_APPEND}


def to_position(place: Place, field: str) -> bus_pb2.Position:
    """The wire form of a place.

    Raises:
        InvalidArgumentError: it is none.
    """
    if place == "earliest":
        return bus_pb2.Position(earliest=True)
    if place == "latest":
        return bus_pb2.Position(latest=True)
    if isinstance(place, datetime):
        return bus_pb2.Position(time_us=to_us(place, field))
    if isinstance(place, Mapping):
        for partition, offset in place.items():
            _check(partition, field)
            _check(offset, field)
        return bus_pb2.Position(offsets=bus_pb2.PartitionOffsets(offsets=dict(place)))
    _check(place, field)
    assert isinstance(place, int)
    return bus_pb2.Position(offset=place)


def to_basis(basis: TimeBasis) -> bus_pb2.TimeBasis:
    """The wire form of a time basis.

    Raises:
        InvalidArgumentError: it is none.
    """
    found = _BASES.get(basis)
    if found is None:
        raise InvalidArgumentError(
            f'time_basis must be "record" or "append", not {basis!r}', metadata={"field": "time_basis"}
        )
    return found


def to_partitions(partitions: Collection[int]) -> list[int]:
    """The wire form of a choice of partitions.

    Raises:
        InvalidArgumentError: one is no number of a partition.
    """
    for number in partitions:
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < 1 << 32:
            raise InvalidArgumentError(f"{number!r} is no partition", metadata={"field": "partitions"})
    return sorted(set(partitions))


def _check(number: object, field: str) -> None:
    if isinstance(number, bool) or not isinstance(number, int):
        raise InvalidArgumentError(
            f'{field} must be "earliest", "latest", a datetime, an offset or offsets by partition, '
            f"not {number!r}",
            metadata={"field": field},
        )
    if not 0 <= number < 1 << 63:
        raise InvalidArgumentError(f"{field}: {number} is no offset", metadata={"field": field})
