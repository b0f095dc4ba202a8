"""Typed events of the services, for telemetry. Emitted only when a sink is given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class PublishHandled:
    """A Publish, or one request of a PublishStream, has been answered."""

    topic: str
    records: int
    bytes: int
    seconds: float
    reason: str  # the error's; empty: acknowledged
    log_index: int  # 0 with an error
    traceparent: str = ""  # W3C, as the caller sent it; empty: none
    repeats: int = 0  # records that were stored before under their idempotency keys


@dataclass(frozen=True, slots=True)
class TransactHandled:
    """A Transact has been answered."""

    seconds: float
    reason: str  # the error's; empty: committed


@dataclass(frozen=True, slots=True)
class DeadLettersTaken:
    """Dead letters of a topic were taken off the list."""

    topic: str
    how: Literal["redriven", "discarded"]
    records: int
