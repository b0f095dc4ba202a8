"""What the topics hold, and what is made of it: pure functions, so that the judge can make it again."""

from __future__ import annotations

from typing import Any

import msgspec

ORDERS, PAYMENTS, LEDGER, DEAD = "orders", "payments", "ledger", "orders.dead"
ENRICHERS, BOOKKEEPERS = "enrichers", "bookkeepers"
#: Keeps the ledger in a database instead.
ACCOUNTANTS = "accountants"
#: The same for all three: a key's records are in the partition of one number in each.
PARTITIONS = 6
#: Stands for planes without a tail number in what has to have a key.
NOBODY = b"unknown"

#: Rows treated specially, by their number: the first attempt of every hundredth fails, one kills
#: its process twice, one cannot be parsed.
FAILS_ONCE = 100
_KILLER, _GARBLED = 333, 777
#: Attempts at the killer that end the process.
KILLS = 2


class Payment(msgspec.Struct):
    """One row, enriched; distances in miles, time in the air in minutes."""

    row: int
    tail: str
    carrier: str
    distance: int
    air_time: int
    cents: int


class Entry(msgspec.Struct):
    """The totals of a tail number after one more payment."""

    row: int
    tail: str
    flights: int
    distance: int
    air_time: int
    cents: int


class Totals(msgspec.Struct):
    """Of one tail number."""

    flights: int = 0
    distance: int = 0
    air_time: int = 0
    cents: int = 0

    def and_(self, payment: Payment) -> Totals:
        """The totals with one payment more."""
        return Totals(
            self.flights + 1,
            self.distance + payment.distance,
            self.air_time + payment.air_time,
            self.cents + payment.cents,
        )


_encode = msgspec.json.Encoder().encode


def order(number: int, row: bytes) -> bytes:
    """A row of the table as an order; one of them is damaged on purpose."""
    return b"%d {" % number if is_garbled(number) else b"%d %s" % (number, row)


def is_garbled(number: int) -> bool:
    """Cannot be parsed: belongs to the dead letters."""
    return number == _GARBLED


def is_killer(number: int) -> bool:
    """Ends the process of whoever handles it."""
    return number == _KILLER


def payment_of(value: bytes) -> Payment:
    """
    Raises:
        ValueError: the order does not parse.
    """
    number, _, text = value.partition(b" ")
    try:
        row: dict[str, Any] = msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise ValueError(f"order {number.decode(errors='replace')}: {error}") from None
    distance = _number(row["distance"])
    return Payment(
        row=int(number),
        tail="" if row["tailnum"] in ("", "NA") else row["tailnum"],
        carrier=row["carrier"],
        distance=distance,
        air_time=_number(row["air_time"]),
        cents=5_000 + 11 * distance,
    )


def key_of(payment: Payment) -> bytes:
    """Of its payment and its ledger entries."""
    return payment.tail.encode() or NOBODY


def entry_of(payment: Payment, totals: Totals) -> bytes:
    """A ledger entry."""
    return _encode(
        Entry(payment.row, payment.tail, totals.flights, totals.distance, totals.air_time, totals.cents)
    )


def encode(payment: Payment) -> bytes:
    return _encode(payment)


def payment(value: bytes) -> Payment:
    return msgspec.json.decode(value, type=Payment)


def entry(value: bytes) -> Entry:
    return msgspec.json.decode(value, type=Entry)


def _number(text: str) -> int:
    return int(float(text)) if text not in ("", "NA") else 0
