"""How an operation ended, and what is said of a history that contradicts itself."""

from __future__ import annotations

from enum import Enum


class HistoryError(ValueError):
    """No history: a line that is no event, or events that contradict their own rules."""


class Outcome(Enum):
    OK = "ok"
    FAIL = "fail"
    UNKNOWN = "unknown"
