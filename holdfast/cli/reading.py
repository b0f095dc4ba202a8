"""Printing records as they are read."""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.cli.times import At


@dataclass(frozen=True, slots=True)
class ReplayRequest:
    """What ``holdfast replay`` was asked for."""

    topic: str
    start: At
    end: At | None
    partitions: tuple[int, ...]
    follow: bool
    limit: int | None
    basis: str
    linearizable: bool


@dataclass(frozen=True, slots=True)
class ConsumeRequest:
    """What ``holdfast consume`` was asked for."""

    topics: tuple[str, ...]
    group: str
    start: At
    limit: int | None
    idle: float | None
    name: str
