"""Rows of an outbox, and the statements for them."""

from __future__ import annotations

import time
import uuid
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

import msgspec

from holdfast.client.inputs import HeadersInput, to_bytes, to_headers, to_key
from holdfast.client.times import to_us
from holdfast.database.names import check_table
from holdfast.errors import InvalidArgumentError, RecordTooLargeError
from holdfast.records import DEFAULT_LIMITS

TABLE = "holdfast_outbox"
#: Bytes of values taken at once; one row more than that at most.
TAKE_BYTES = 8 << 20

_MAX_TOKEN_BYTES = 256
#: Of the one relay that publishes, and of the making of the table.
_LOCK = 0x686F6C64

_CREATE = """
CREATE TABLE IF NOT EXISTS {table} (
    id {id},
    token {bytes} NOT NULL,
    topic text NOT NULL,
    rkey {bytes},
    body {bytes} NOT NULL,
    headers {bytes} NOT NULL,
    created_us bigint NOT NULL,
    failed text
)
"""

_PUT = """
INSERT INTO {table} (token, topic, rkey, body, headers, created_us)
VALUES (:token, :topic, :rkey, :body, :headers, :created_us)
"""

_TAKE = """
SELECT id, token, topic, rkey, body, headers, created_us FROM (
    SELECT id, token, topic, rkey, body, headers, created_us, length(body) AS size,
        sum(length(body)) OVER (ORDER BY id) AS upto
    FROM (SELECT * FROM {table} WHERE failed IS NULL {others} ORDER BY id LIMIT :most) AS head
) AS measured
WHERE upto - size < :bytes ORDER BY id
"""


class Dialect(NamedTuple):
    """What differs between kinds of databases."""

    create: str
    #: Takes the lock of the one relay that publishes; None: there is none to take.
    lock: str | None


def dialect_for_postgres(table: str) -> Dialect:
    create = _CREATE.format(table=table, id="bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY", bytes="bytea")
    return Dialect(
        f"DO $$ BEGIN PERFORM pg_advisory_xact_lock({_LOCK}); {create}; END $$",
        f"SELECT pg_try_advisory_lock({_LOCK}, hashtext('{table}'))",
    )


def dialect_for_sqlite(table: str) -> Dialect:
    # AUTOINCREMENT: a number is never given out again, so that the order of numbers stays that of rows.
    return Dialect(_CREATE.format(table=table, id="integer PRIMARY KEY AUTOINCREMENT", bytes="blob"), None)


class Row(NamedTuple):
    """A record that is to be published."""

    id: int
    token: bytes
    topic: str
    key: bytes | None
    value: bytes
    headers: tuple[tuple[str, bytes], ...]
    created_us: int


class Rows:
    """What all outboxes have: their table, and what is done with it in ``:name`` statements.

    Args:
        table: may carry a schema.

    Raises:
        InvalidArgumentError: its name makes no sense.
    """

    def __init__(self, *, table: str = TABLE) -> None:
        self.table = check_table(table)
        self._put_sql = _PUT.format(table=table)

    def row(
        self,
        topic: str,
        value: bytes,
        key: bytes | str | None,
        headers: HeadersInput,
        idempotency_key: bytes | str | None,
        timestamp: Any,
    ) -> dict[str, Any]:
        """What is written. Checked here, where the transaction can still be given up.

        Raises:
            InvalidArgumentError, RecordTooLargeError: it could not be published.
        """
        if not isinstance(topic, str) or not topic:
            raise InvalidArgumentError("topic must be a name", metadata={"field": "topic"})
        token = uuid.uuid4().bytes if idempotency_key is None else _token(idempotency_key)
        pairs = to_headers(headers) or ()
        name = None if key is None else to_key(key)
        if name is not None and len(name) > DEFAULT_LIMITS.max_key_bytes:
            raise RecordTooLargeError(
                f"a key of {len(name)} bytes; the limit is {DEFAULT_LIMITS.max_key_bytes}",
                metadata={"field": "key"},
            )
        return {
            "token": token,
            "topic": topic,
            "rkey": name,
            "body": to_bytes(value, "value"),
            "headers": msgspec.msgpack.encode(pairs),
            "created_us": time.time_ns() // 1_000 if timestamp is None else to_us(timestamp),
        }

    # -- for the relay, on a connection of its own ----------------------------------------

    def lock(self, connection: Any) -> bool:
        """Whether this connection's relay is the one that publishes."""
        text = self._dialect(connection).lock
        locked = text is None or bool(self._query(connection, text, {})[0][0])
        connection.commit()
        return locked

    def take(self, connection: Any, most: int, without: Collection[str]) -> list[Row]:
        """The first rows of topics but these; they stay where they are."""
        names = {f"t{number}": topic for number, topic in enumerate(sorted(without))}
        others = f"AND topic NOT IN ({', '.join(f':{name}' for name in names)})" if names else ""
        text = _TAKE.format(table=self.table, others=others)
        found = self._query(connection, text, {**names, "most": most, "bytes": TAKE_BYTES})
        connection.commit()
        return [
            Row(
                number,
                bytes(token),
                topic,
                None if key is None else bytes(key),
                bytes(body),
                msgspec.msgpack.decode(bytes(headers), type=tuple[tuple[str, bytes], ...]),
                created_us,
            )
            for number, token, topic, key, body, headers, created_us in found
        ]

    def finish(self, connection: Any, done: Iterable[int], failed: Mapping[int, str]) -> None:
        """Delete what is published; set aside what never can be."""
        numbers = ", ".join(map(str, sorted(done)))
        if numbers:
            self._change(connection, f"DELETE FROM {self.table} WHERE id IN ({numbers})", {})
        for number, text in failed.items():
            change = f"UPDATE {self.table} SET failed = :failed WHERE id = :id"
            self._change(connection, change, {"id": number, "failed": text})
        connection.commit()

    def _dialect(self, connection: Any) -> Dialect:
        raise NotImplementedError

    def _query(self, connection: Any, text: str, values: Mapping[str, Any]) -> list[Any]:
        """Rows, as tuples."""
        raise NotImplementedError

    def _change(self, connection: Any, text: str, values: Mapping[str, Any]) -> None:
        raise NotImplementedError


def _token(key: bytes | str) -> bytes:
    if isinstance(key, str):
        key = key.encode()
    if not isinstance(key, bytes) or not 1 <= len(key) <= _MAX_TOKEN_BYTES:
        raise InvalidArgumentError(
            f"idempotency_key must be text or bytes, 1 to {_MAX_TOKEN_BYTES} of them",
            metadata={"field": "idempotency_key"},
        )
    return key
