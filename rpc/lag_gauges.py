"""Lags and members of groups at the moment of a scrape."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import chain

from holdfast.cluster.delivery.lag import LagReader
from holdfast.cluster.ports import Clock
from holdfast.cluster.state.names import is_hidden
from holdfast.rpc.telemetry.gauges import GroupLag, GroupMembers, GroupsMoment
from holdfast.storage import groups, members
from holdfast.storage.port import Reader, Store, Table

#: Series of one instrument, and rows looked at for them: more would make a scrape long for everybody.
MAX_SERIES = 1_000
MAX_ROWS = 20_000


class LagGauges:
    """What a leader's gauges show of groups; called on the exporter's thread.

    Only the leader answers, so that a sum over nodes counts each lag once.
    Groups with members come first, then whoever is behind.

    Args:
        leads: whether this node leads now.
        in_flight: records with members, per group that has some connected.
    """

    def __init__(
        self,
        store: Store,
        leads: Callable[[], bool],
        clock: Clock,
        in_flight: Callable[[], Mapping[str, int]] = dict,
        *,
        max_series: int = MAX_SERIES,
        max_rows: int = MAX_ROWS,
    ) -> None:
        self._store = store
        self._leads = leads
        self._clock = clock
        self._in_flight = in_flight
        self._max_series = max_series
        self._max_rows = max_rows

    def __call__(self) -> GroupsMoment:
        """
        Raises:
            HoldfastError: the store is closing, or damaged.
        """
        if not self._leads():
            return GroupsMoment()
        with self._store.read() as reader:
            return self._read(reader)

    def _read(self, reader: Reader) -> GroupsMoment:
        counts, in_flight = _members(reader), self._in_flight()
        names = [name for name in chain(counts, groups.list_groups(reader)) if not is_hidden(name)]
        now_us = self._clock.wall_us()
        found: list[GroupLag] = []
        looked = rest = 0
        lags = LagReader(reader)
        for name in dict.fromkeys(names):
            if looked >= self._max_rows:
                # What is left is as good as what has been begun with, and that is known without a look.
                rest = max(0, reader.count(Table.OFFSETS) - len(found))
                break
            looked += 1
            if not groups.exists(reader, name):
                continue
            for lag in lags.group(name):
                behind = max(now_us, lag.last_append_us) - lag.oldest_append_us if lag.records else 0
                found.append(
                    GroupLag(
                        name,
                        lag.topic,
                        lag.key[1],
                        lag.records,
                        behind / 1_000_000,
                        lag.retrying,
                        lag.parked,
                    )
                )
                looked += lag.looked
                if looked >= self._max_rows:
                    break
        # Sorting is stable: groups with members stay before others.
        found.sort(key=lambda lag: (lag.group not in counts, lag.records == 0))
        shown = found[: self._max_series]
        return GroupsMoment(
            tuple(shown),
            tuple(
                GroupMembers(name, count, in_flight.get(name, 0))
                for name, count in list(counts.items())[: self._max_series]
            ),
            len(found) - len(shown) + rest,
        )


def _members(reader: Reader) -> dict[str, int]:
    """How many members each group has that has any."""
    counts: dict[str, int] = {}
    for name, _, _ in members.scan_all(reader):
        counts[name] = counts.get(name, 0) + 1
    return counts
