"""Reads the pipeline's topics back and compares them with the table, made anew from the file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import holdfast
from holdfast.chaos.demo.flights import Departure
from holdfast.chaos.pipeline import rows

_Item = TypeVar("_Item")


@dataclass
class Findings:
    """Counts of the result line, and what is wrong in words."""

    orders: int = 0
    payments: int = 0
    ledger: int = 0
    dead: int = 0
    lost: int = 0
    duplicated: int = 0
    out_of_order: int = 0
    problems: list[str] = field(default_factory=list)

    def wrong(self, text: str) -> None:
        """Note a problem; the first of many are enough."""
        if len(self.problems) < 50:
            self.problems.append(text)


def payments_of(departures: Sequence[Departure]) -> dict[int, rows.Payment]:
    """What the orders of these departures are to become, by row."""
    return {
        number: rows.payment_of(rows.order(number, departure.value))
        for number, departure in enumerate(departures)
        if not rows.is_garbled(number)
    }


async def judge(bus: holdfast.Client, departures: Sequence[Departure], *, ledger: bool = True) -> Findings:
    """What the topics hold, beside what the first ``len(departures)`` rows of the table ask for.

    Args:
        ledger: it is a topic.
    """
    found = Findings()
    payments = payments_of(departures)
    await _orders(bus, departures, found)
    await _payments(bus, payments, found)
    if ledger:
        await _ledger(bus, payments, found)
    await _dead(bus, len(departures), found)
    return found


async def _orders(bus: holdfast.Client, departures: Sequence[Departure], found: Findings) -> None:
    seen: Counter[bytes] = Counter()
    async for record in bus.replay(rows.ORDERS, linearizable=True):
        seen[record.value] += 1
    found.orders = seen.total()
    wanted = Counter(rows.order(n, departure.value) for n, departure in enumerate(departures))
    _compare(found, rows.ORDERS, wanted, seen)


async def _payments(bus: holdfast.Client, wanted: dict[int, rows.Payment], found: Findings) -> None:
    seen: Counter[int] = Counter()
    last: dict[bytes, int] = {}
    async for record in bus.replay(rows.PAYMENTS, linearizable=True):
        payment = rows.payment(record.value)
        seen[payment.row] += 1
        if payment != wanted.get(payment.row):
            found.wrong(f"payment {payment} is not what its order says")
        key = rows.key_of(payment)
        if key != rows.NOBODY:
            _in_order(found, rows.PAYMENTS, last, key, payment.row)
    found.payments = seen.total()
    _compare(found, rows.PAYMENTS, Counter(wanted.keys()), seen)


async def _ledger(bus: holdfast.Client, payments: dict[int, rows.Payment], found: Findings) -> None:
    seen: Counter[int] = Counter()
    last: dict[bytes, int] = {}
    totals: dict[str, rows.Entry] = {}
    async for record in bus.replay(rows.LEDGER, linearizable=True):
        entry = rows.entry(record.value)
        seen[entry.row] += 1
        totals[entry.tail] = entry
        if entry.tail:
            _in_order(found, rows.LEDGER, last, entry.tail.encode(), entry.row)
    check_books(
        found,
        payments,
        seen,
        {
            tail: rows.Totals(entry.flights, entry.distance, entry.air_time, entry.cents)
            for tail, entry in totals.items()
        },
    )


def check_books(
    found: Findings, payments: dict[int, rows.Payment], seen: Counter[int], totals: dict[str, rows.Totals]
) -> None:
    """Whether each payment was booked once, and the totals of each tail number are the table's."""
    found.ledger = seen.total()
    _compare(found, rows.LEDGER, Counter(payments.keys()), seen)
    wanted: dict[str, rows.Totals] = {}
    for payment in payments.values():
        wanted[payment.tail] = wanted.get(payment.tail, rows.Totals()).and_(payment)
    for tail, total in wanted.items():
        held = totals.get(tail)
        if held is None:
            found.wrong(f"the ledger has nothing of {tail or 'planes without a number'}")
        elif held != total:
            found.wrong(f"the ledger says {held} where the table adds up to {total}")


async def _dead(bus: holdfast.Client, count: int, found: Findings) -> None:
    letters = [record async for record in bus.replay(rows.DEAD, linearizable=True)]
    found.dead = len(letters)
    wanted = [number for number in range(count) if rows.is_garbled(number)]
    numbers = [int(letter.value.split(b" ", 1)[0]) for letter in letters]
    if numbers != wanted:
        found.wrong(f"dead letters of rows {numbers}, where {wanted} were to die")
    for letter in letters:
        if b"order" not in (letter.header("holdfast-dead-errors") or b""):
            found.wrong("a dead letter does not say why it died")


def _in_order(found: Findings, topic: str, last: dict[bytes, int], key: bytes, row: int) -> None:
    if last.get(key, -1) >= row:
        found.out_of_order += 1
        found.wrong(f"{topic}: row {row} of {key.decode()} behind row {last[key]}")
    last[key] = row


def _compare(found: Findings, topic: str, wanted: Counter[_Item], seen: Counter[_Item]) -> None:
    lost = wanted - seen
    more = seen - wanted
    found.lost += lost.total()
    found.duplicated += more.total()
    if lost:
        found.wrong(f"{topic}: {lost.total()} are missing, such as {list(lost)[:3]}")
    if more:
        found.wrong(f"{topic}: {more.total()} too many, such as {list(more)[:3]}")
