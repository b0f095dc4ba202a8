"""The ledger in PostgreSQL: totals by tail number, and an inbox that has each payment booked once."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import holdfast
from holdfast import GroupDefinition, Retry
from holdfast.chaos.pipeline import rows
from holdfast.inbox import PostgresInbox

_BATCH = 50
_IN_FLIGHT = 400
#: After a failure of the database, seconds.
_PAUSE = 0.2

DEFINITION = GroupDefinition(
    topics=[rows.PAYMENTS],
    ordering="partition",
    retry=Retry(initial=0.2, maximum=1.0),
    ack_timeout=10.0,
)

_TABLES = """
CREATE TABLE ledger (
    tail text PRIMARY KEY, flights bigint, distance bigint, air_time bigint, cents bigint,
    last_row bigint, disordered bigint NOT NULL DEFAULT 0
);
CREATE TABLE booked (row bigint NOT NULL)
"""
_BOOK = """
INSERT INTO ledger AS held (tail, flights, distance, air_time, cents, last_row)
VALUES (%(tail)s, 1, %(distance)s, %(air_time)s, %(cents)s, %(row)s)
ON CONFLICT (tail) DO UPDATE SET
    flights = held.flights + 1, distance = held.distance + excluded.distance,
    air_time = held.air_time + excluded.air_time, cents = held.cents + excluded.cents,
    disordered = held.disordered + (held.tail <> '' AND excluded.last_row <= held.last_row)::int,
    last_row = excluded.last_row
"""


async def prepare(database: str) -> None:
    """Make the tables."""
    async with await _connect(database) as connection:
        await connection.execute(_TABLES)
        await PostgresInbox(rows.ACCOUNTANTS).create(connection)


async def booked(database: str) -> int:
    """How many payments are in the ledger; -1: the database does not answer."""
    try:
        async with await _connect(database) as connection:
            found = await (await connection.execute("SELECT count(*) FROM booked")).fetchone()
    except _driver().Error:
        return -1
    return int(found[0])


async def read(database: str) -> tuple[Counter[int], dict[str, rows.Totals], int]:
    """How often each row was booked, the totals by tail number, and how many came out of order."""
    async with await _connect(database) as connection:
        seen = await (await connection.execute("SELECT row, count(*) FROM booked GROUP BY row")).fetchall()
        ledger = await (
            await connection.execute(
                "SELECT tail, flights, distance, air_time, cents, disordered FROM ledger"
            )
        ).fetchall()
    totals = {tail: rows.Totals(*map(int, numbers)) for tail, *numbers, _ in ledger}
    return Counter({int(row): int(n) for row, n in seen}), totals, sum(int(line[-1]) for line in ledger)


async def keep_accounts(bus: holdfast.Client, database: str) -> None:
    """As a member of the group: each batch of payments in one transaction of the database, then acked.

    A crash between the two brings the payments again, to an inbox that knows them.
    """
    inbox = PostgresInbox(rows.ACCOUNTANTS)
    member = bus.join(rows.ACCOUNTANTS, DEFINITION, max_in_flight=_IN_FLIGHT, give_up_after=None)
    connection: Any = None
    async with member:
        while records := await member.take(_BATCH):
            try:
                if connection is None:
                    connection = await _connect(database)
                await _book(connection, inbox, records)
            except _driver().Error:
                # Killed, or it was: what this transaction did, or did not, the inbox will tell.
                connection = None
                for record in records:
                    record.release()
                await asyncio.sleep(_PAUSE)
            else:
                for record in records:
                    record.ack()


async def _book(connection: Any, inbox: PostgresInbox, records: Sequence[holdfast.Record]) -> None:
    async with connection.transaction():
        for record in records:
            if await inbox.begin(connection, record):
                payment = rows.payment(record.value)
                await connection.execute(
                    _BOOK,
                    {
                        "tail": payment.tail,
                        "distance": payment.distance,
                        "air_time": payment.air_time,
                        "cents": payment.cents,
                        "row": payment.row,
                    },
                )
                await connection.execute("INSERT INTO booked VALUES (%s)", (payment.row,))


async def _connect(database: str) -> Any:
    return await _driver().AsyncConnection.connect(database, autocommit=True)


def _driver() -> Any:
    # Only where a PostgreSQL is used: the drill without one needs no driver.
    return import_module("psycopg")
