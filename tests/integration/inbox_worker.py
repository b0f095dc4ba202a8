"""A consumer that is killed: handles the records that are not acknowledged, in order, then ends.

usage: inbox_worker.py KIND TARGET ACKED RECORDS DIE [--without]

Each effect is a row of its own and an addition to a total. DIE is
OFFSET:effect (killed with the effect made and not committed) or OFFSET:commit
(committed and not acknowledged), each once: whoever finds DIED.OFFSET goes on.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from holdfast.client.types import Record
from holdfast.inbox import PostgresInbox, SqlAlchemyInbox, SqliteInbox

TABLES = (
    "CREATE TABLE IF NOT EXISTS effects (off bigint NOT NULL)",
    "CREATE TABLE IF NOT EXISTS totals (id integer PRIMARY KEY, total bigint NOT NULL)",
    "INSERT INTO totals VALUES (1, 0) ON CONFLICT DO NOTHING",
)


def main(kind: str, target: str, acked: Path, records: int, die: str, without: bool) -> None:
    connection, inbox, execute = open_it(kind, target)
    inbox.create(connection)
    for text in TABLES:
        execute(text)
    connection.commit()
    at, _, when = die.partition(":")
    died = acked.with_name(f"died.{at}.{when}")
    done = {int(line) for line in acked.read_text().split()} if acked.exists() else set()
    for offset in range(records):
        if offset in done:
            continue
        doomed = str(offset) == at and not died.exists()
        if inbox.begin(connection, Record("payments", 0, offset, None, b"", 0, offset)) or without:
            execute(f"INSERT INTO effects VALUES ({offset})")
            execute(f"UPDATE totals SET total = total + {offset}")
        if doomed and when == "effect":
            end(died)
        connection.commit()
        if doomed and when == "commit":
            end(died)
        print(offset, flush=True)
        with acked.open("a") as file:
            file.write(f"{offset}\n")
    connection.close()


def open_it(kind: str, target: str) -> tuple[Any, Any, Callable[[str], object]]:
    if kind == "sqlite":
        import sqlite3

        plain = sqlite3.connect(target, timeout=30)
        return plain, SqliteInbox("ledger"), plain.execute
    if kind == "postgres":
        import psycopg

        connection = psycopg.connect(target)
        return connection, PostgresInbox("ledger"), connection.execute  # type: ignore[return-value]
    import sqlalchemy
    from sqlalchemy.orm import Session

    session = Session(sqlalchemy.create_engine(target))
    return session, SqlAlchemyInbox("ledger"), lambda text: session.execute(sqlalchemy.text(text))


def end(died: Path) -> None:
    died.touch()
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]), sys.argv[5], "--without" in sys.argv)
