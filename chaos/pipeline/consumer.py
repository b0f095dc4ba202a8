"""One consumer process: a member of both groups."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections import defaultdict
from collections.abc import Sequence

import holdfast
from holdfast import GroupDefinition, Retry
from holdfast.chaos.pipeline import rows
from holdfast.chaos.pipeline.accounts import keep_accounts
from holdfast.client.events import Assigned, Disconnected, SubscriptionEvent
from holdfast.errors import HoldfastError, TransactionRefusedError

_BATCH = 50
_IN_FLIGHT = 400

ENRICHERS = GroupDefinition(
    topics=[rows.ORDERS],
    semantics="exactly_once",
    ordering="key",
    retry=Retry(attempts=5, initial=0.2, maximum=1.0),
    dead_letter=rows.DEAD,
    ack_timeout=10.0,
)
BOOKKEEPERS = GroupDefinition(
    topics=[rows.PAYMENTS],
    semantics="exactly_once",
    ordering="partition",
    retry=Retry(initial=0.2, maximum=1.0),
    ack_timeout=10.0,
)


async def consume(endpoints: Sequence[str], database: str = "") -> None:
    """Until SIGTERM; what is under way then is given back.

    Args:
        database: a PostgreSQL that has the ledger, as libpq takes it; empty: a topic has it.
    """
    over = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, over.set)
    async with holdfast.connect(endpoints, delivery_timeout=60.0) as bus:
        books = keep_accounts(bus, database) if database else _keep_books(bus)
        tasks = [asyncio.ensure_future(_enrich(bus)), asyncio.ensure_future(books)]
        ended = asyncio.ensure_future(over.wait())
        done, _ = await asyncio.wait([*tasks, ended], return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        for each in done:
            each.result()


async def _enrich(bus: holdfast.Client) -> None:
    member = bus.join(
        rows.ENRICHERS, ENRICHERS, max_in_flight=_IN_FLIGHT, concurrency=_BATCH, give_up_after=None
    )
    async with member:
        while records := await member.take(_BATCH):
            good = []
            for record in records:
                try:
                    good.append((record, _enriched(record)))
                except ValueError as error:
                    record.reject(error=str(error))
                except RuntimeError as error:
                    record.nack(error=str(error))
            if good:
                await _commit(
                    bus,
                    [record for record, _ in good],
                    [(rows.PAYMENTS, rows.key_of(payment), rows.encode(payment)) for _, payment in good],
                )


def _enriched(record: holdfast.Record) -> rows.Payment:
    """
    Raises:
        ValueError: it never will be.
        RuntimeError: not this time.
    """
    payment = rows.payment_of(record.value)
    if rows.is_killer(payment.row) and record.attempt <= rows.KILLS:
        print(f"row {payment.row}, attempt {record.attempt}: the process dies", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    if payment.row % rows.FAILS_ONCE == 0 and record.attempt == 1:
        raise RuntimeError("the first attempt fails")
    return payment


class _Books:
    """Totals of the partitions this member has, as of the ledger."""

    def __init__(self, bus: holdfast.Client) -> None:
        self._bus = bus
        self._totals: dict[int, dict[str, rows.Totals]] = {}

    def heard(self, event: SubscriptionEvent) -> None:
        # Somebody else may have had a partition in between: what is in the ledger counts.
        if isinstance(event, Assigned | Disconnected):
            self._totals = {}

    def forget(self, partition: int) -> None:
        """What is known of it may not be what the ledger says."""
        self._totals.pop(partition, None)

    async def of(self, partition: int) -> dict[str, rows.Totals]:
        """Of one partition. It is complete: what an owner before committed is in the log before the
        assignment, and nothing it tries afterwards is let in.
        """
        known = self._totals.get(partition)
        if known is None:
            books = self._totals
            known = {}
            reading = self._bus.replay(rows.LEDGER, partitions=[partition], linearizable=True)
            async for record in reading:
                entry = rows.entry(record.value)
                known[entry.tail] = rows.Totals(entry.flights, entry.distance, entry.air_time, entry.cents)
            books[partition] = known
        return known


async def _keep_books(bus: holdfast.Client) -> None:
    books = _Books(bus)
    member = bus.join(
        rows.BOOKKEEPERS, BOOKKEEPERS, max_in_flight=_IN_FLIGHT, give_up_after=None, on_event=books.heard
    )
    async with member:
        while records := await member.take(_BATCH):
            by_partition: dict[int, list[holdfast.Record]] = defaultdict(list)
            for record in records:
                by_partition[record.partition].append(record)
            for partition, some in by_partition.items():
                known = await books.of(partition)
                changed: dict[str, rows.Totals] = {}
                entries = []
                for record in some:
                    payment = rows.payment(record.value)
                    before = changed.get(payment.tail) or known.get(payment.tail) or rows.Totals()
                    changed[payment.tail] = before.and_(payment)
                    entries.append(
                        (rows.LEDGER, rows.key_of(payment), rows.entry_of(payment, changed[payment.tail]))
                    )
                if await _commit(bus, some, entries):
                    known |= changed
                else:
                    books.forget(partition)


async def _commit(
    bus: holdfast.Client, records: Sequence[holdfast.Record], made: Sequence[tuple[str, bytes, bytes]]
) -> bool:
    """Publish and consume, all or nothing; False: not these, or not by this member."""
    try:
        async with bus.transaction() as transaction:
            for topic, key, value in made:
                transaction.publish(topic, value, key=key)
            for record in records:
                transaction.consume(record)
    except TransactionRefusedError:
        pass  # one of them is somebody else's by now; the others come again
    except HoldfastError as error:
        if not error.retriable:
            raise
    else:
        return True
    for record in records:
        record.release()
    return False
