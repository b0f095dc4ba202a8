"""A transaction of the synchronous client."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from datetime import datetime
from types import TracebackType
from typing import Any

from holdfast.client.inputs import HeadersInput
from holdfast.client.transaction import Transaction, TransactionResult
from holdfast.client.types import Record


class SyncTransaction:
    """What ``Transaction`` does, with ``with``. Made by ``SyncClient.transaction``.

    Args:
        transaction: of the asynchronous client.
        run: runs a coroutine on its loop, and waits.
    """

    def __init__(
        self,
        transaction: Transaction,
        run: Callable[[Coroutine[Any, Any, TransactionResult]], TransactionResult],
    ) -> None:
        self._transaction = transaction
        self._run = run

    @property
    def result(self) -> TransactionResult:
        """See ``Transaction.result``."""
        return self._transaction.result

    def publish(
        self,
        topic: str,
        value: bytes,
        key: bytes | str | None = None,
        *,
        headers: HeadersInput = None,
        timestamp: datetime | int | None = None,
        idempotency_key: bytes | str | None = None,
    ) -> None:
        """See ``Transaction.publish``."""
        self._transaction.publish(
            topic, value, key, headers=headers, timestamp=timestamp, idempotency_key=idempotency_key
        )

    def consume(self, record: Record) -> None:
        """See ``Transaction.consume``."""
        source = record.subscription
        # Records handed to other threads lead back to the subscription through its wrapper.
        inner = getattr(source, "subscription", source)
        self._transaction.consume(record._replace(subscription=inner))

    def commit(self) -> TransactionResult:
        """See ``Transaction.commit``."""
        return self._run(self._transaction.commit())

    def __enter__(self) -> SyncTransaction:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._transaction.abandon()
        elif self._transaction.open:
            self.commit()
