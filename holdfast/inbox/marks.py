"""Marks: which records a consumer has handled, and the statements that keep them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from holdfast import headers as names
from holdfast.client.types import Record
from holdfast.database.names import check_table
from holdfast.database.styles import for_psycopg
from holdfast.errors import InvalidArgumentError

#: The table, unless another name is given.
TABLE = "holdfast_inbox"
#: Seconds a mark below the group's offset is kept: a dead letter may be redriven that was handled after all.
KEEP = 86_400.0

_MAX_CONSUMER = 249
#: Guards the making of the table: PostgreSQL's IF NOT EXISTS is no help against somebody doing the same.
_LOCK = 0x686F6C64666173

#: On a redriven record: where it was published first.
_ORIGIN = (names.REDRIVE_TOPIC, names.REDRIVE_PARTITION, names.REDRIVE_OFFSET, names.REDRIVE_APPEND_US)

_CREATE = """
CREATE TABLE IF NOT EXISTS {table} (
    consumer text NOT NULL,
    topic text NOT NULL,
    part integer NOT NULL,
    off bigint NOT NULL,
    append_us bigint NOT NULL,
    at {time} NOT NULL,
    PRIMARY KEY (consumer, topic, part, off)
)
"""

# An offset may be another record's once its topic has been made anew: the time of append tells.
_BEGIN = """
INSERT INTO {table} AS held (consumer, topic, part, off, append_us, at)
VALUES (:consumer, :topic, :part, :off, :append_us, {now})
ON CONFLICT (consumer, topic, part, off) DO UPDATE
SET append_us = excluded.append_us, at = excluded.at
WHERE held.append_us <> excluded.append_us
"""

_PRUNE = """
DELETE FROM {table}
WHERE consumer = :consumer AND topic = :topic AND part = :part AND off < :floor AND at <= {past}
"""


class Statements(NamedTuple):
    """For one kind of database; parameters are ``:name``."""

    create: str
    begin: str
    prune: str

    def for_psycopg(self) -> Statements:
        """The same as psycopg wants them."""
        return Statements(*map(for_psycopg, self))


def for_postgres(table: str) -> Statements:
    create = _CREATE.format(table=table, time="timestamptz")
    return Statements(
        f"DO $$ BEGIN PERFORM pg_advisory_xact_lock({_LOCK}); {create}; END $$",
        _BEGIN.format(table=table, now="clock_timestamp()"),
        _PRUNE.format(table=table, past="clock_timestamp() - make_interval(secs => :keep)"),
    )


def for_sqlite(table: str) -> Statements:
    now = "CAST(strftime('%s', 'now') AS INTEGER)"
    return Statements(
        _CREATE.format(table=table, time="integer"),
        _BEGIN.format(table=table, now=now),
        _PRUNE.format(table=table, past=f"{now} - :keep"),
    )


class Marks:
    """What all inboxes have: whose marks, and in which table.

    Args:
        consumer: whose effects they guard; groups with effects of their own need names of their own.
        table: may carry a schema.

    Raises:
        InvalidArgumentError: a name makes no sense.
    """

    def __init__(self, consumer: str, *, table: str = TABLE) -> None:
        if not isinstance(consumer, str) or not 1 <= len(consumer) <= _MAX_CONSUMER:
            raise InvalidArgumentError(
                f"consumer must be a name of 1 to {_MAX_CONSUMER} characters", metadata={"field": "consumer"}
            )
        self.consumer = consumer
        self.table = check_table(table)

    def mark(self, record: Record) -> dict[str, Any]:
        """The record's mark: its place, or where it stood at first when it was redriven."""
        topic, part, off, append_us = _origin(record)
        return {
            "consumer": self.consumer,
            "topic": topic,
            "part": part,
            "off": off,
            "append_us": append_us,
        }

    def pruned(self, floors: Mapping[tuple[str, int], int], keep: float) -> Iterator[dict[str, Any]]:
        """Parameters of the deletions below a group's offsets.

        Raises:
            InvalidArgumentError: no such time.
        """
        if not keep >= 0:
            raise InvalidArgumentError(
                f"keep must be 0 seconds or more, not {keep}", metadata={"field": "keep"}
            )
        for (topic, partition), floor in sorted(floors.items()):
            yield {
                "consumer": self.consumer,
                "topic": topic,
                "part": partition,
                "floor": floor,
                "keep": float(keep),
            }


def _origin(record: Record) -> tuple[str, int, int, int]:
    """Place and time of append of a record, or of the one it is a repetition of."""
    own = record.topic, record.partition, record.offset, record.append_time_us
    # A dead letter is a record of its own, also when the dead one had been redriven: two groups may
    # have given up the same record, and whoever reads their dead letters has two.
    if not record.headers or record.header(names.DEAD_TOPIC) is not None:
        return own
    found = [record.header(name) for name in _ORIGIN]
    try:
        topic, part, off, append_us = [value.decode() for value in found if value is not None]
        return topic, int(part), int(off), int(append_us)
    except ValueError:  # not four, or not numbers: it has only its own
        return own
