"""The Groups service's GetLag: how far groups are behind, exactly, as of what this node has applied."""

from __future__ import annotations

import grpc

from holdfast.cluster.delivery.lag import FlowLag, Key, LagReader
from holdfast.cluster.ports import Clock
from holdfast.cluster.state.group_view import unknown_group
from holdfast.cluster.state.names import MAX_NAME, check_name, is_hidden
from holdfast.rpc.bridge import EngineBridge
from holdfast.rpc.services.groups import SERVICE, page_limit
from holdfast.rpc.services.handlers import unary
from holdfast.rpc.status import invalid
from holdfast.storage import groups, journal
from holdfast.storage.port import Store
from holdfast.v1 import groups_pb2

#: Partitions in one answer, and rows it looks at: both are of one snapshot, read without a pause (10 ms).
MAX_PARTITIONS = 500
MAX_ROWS = 5_000

#: Group names asked for at a time.
_NAMES = 100


class GroupLagService:
    """``GetLag`` of ``holdfast.v1.Groups``.

    Args:
        max_partitions, max_rows: bounds of one answer; it holds one partition at least.
    """

    def __init__(
        self,
        store: Store,
        bridge: EngineBridge,
        clock: Clock,
        *,
        max_partitions: int = MAX_PARTITIONS,
        max_rows: int = MAX_ROWS,
    ) -> None:
        self._store = store
        self._bridge = bridge
        self._clock = clock
        self._max_partitions = max_partitions
        self._max_rows = max_rows

    def handlers(self, default_timeout: float) -> grpc.GenericRpcHandler[bytes, bytes]:
        """What a server registers."""
        return grpc.method_handlers_generic_handler(
            SERVICE, {"GetLag": unary(groups_pb2.GetLagRequest, self.get_lag, default_timeout)}
        )

    async def get_lag(self, request: groups_pb2.GetLagRequest, timeout: float) -> groups_pb2.GetLagResponse:
        """A page of lags by group and partition, without waiting for another node unless asked to.

        Groups of the brokers' own are not shown. Each page is as of its own index.

        Args:
            timeout: in seconds.

        Raises:
            UnknownGroupError: there is none of this name.
            InvalidArgumentError: ``after`` or ``limit`` cannot be.
            NoLeaderError, DeadlineExceededError: with ``linearizable``, it cannot be known now.
            DamagedRowError: a row that is needed is damaged, and no other node has it.
        """
        if request.group:
            check_name(request.group, what="group", field="group")
        limit = page_limit(request.limit)
        cursor = _Cursor.parse(request.after)
        if request.group and cursor.group and cursor.group != request.group:
            raise invalid("after", f"after goes on with group {cursor.group[:64]!r}, not {request.group!r}")
        end = self._clock.monotonic() + timeout
        if request.linearizable:
            await self._bridge.barrier(timeout)
        left = max(end - self._clock.monotonic(), 0.0)
        return await self._bridge.read_repaired(lambda: self._page(request.group, cursor, limit), left)

    def _page(self, only: str, cursor: _Cursor, limit: int) -> groups_pb2.GetLagResponse:
        page = _Page()
        with self._store.read() as reader:
            page.answer.applied_index = journal.read_meta(reader).applied_index
            lags = LagReader(reader)
            if only and not groups.exists(reader, only):
                raise unknown_group(only)
            shown = 0
            name = only or cursor.group
            names = [name] if only or cursor.key is not None else []
            while True:
                for name in names:
                    if is_hidden(name) or not groups.exists(reader, name):
                        continue
                    for lag in lags.group(name, cursor.key if name == cursor.group else None):
                        if page.partitions and self._full(page):
                            return page.end(self._clock.wall_us(), _Cursor(page.group, page.key))
                        page.add(name, lag)
                    shown += 1
                    if shown == limit:
                        more = not only and bool(groups.list_groups(reader, name, 1))
                        return page.end(self._clock.wall_us(), _Cursor(name, None) if more else None)
                if only:
                    break
                names = groups.list_groups(reader, name, _NAMES)
                if not names:
                    break
        return page.end(self._clock.wall_us(), None)

    def _full(self, page: _Page) -> bool:
        return page.partitions >= self._max_partitions or page.looked >= self._max_rows


class _Cursor:
    """Where a page ended: behind a group, or behind one of its partitions."""

    __slots__ = ("group", "key")

    def __init__(self, group: str, key: Key | None) -> None:
        self.group = group
        self.key = key

    @classmethod
    def parse(cls, text: str) -> _Cursor:
        """
        Raises:
            InvalidArgumentError: no answer said this.
        """
        group, slash, place = text.partition("/")
        numbers = place.split("/")
        if len(group) > MAX_NAME or (slash and (not group or len(numbers) != 2)):
            raise _no_cursor()
        if not slash:
            return cls(group, None)
        if not all(each.isascii() and each.isdigit() and len(each) <= 10 for each in numbers):
            raise _no_cursor()
        return cls(group, (int(numbers[0]), int(numbers[1])))

    def __str__(self) -> str:
        # No user's group has a slash in its name.
        return self.group if self.key is None else f"{self.group}/{self.key[0]}/{self.key[1]}"


class _Page:
    """An answer as it grows."""

    def __init__(self) -> None:
        self.answer = groups_pb2.GetLagResponse()
        self.partitions = 0
        self.looked = 0
        self.group = ""
        self.key: Key | None = None
        self._newest = 0

    def add(self, group: str, lag: FlowLag) -> None:
        self.answer.lags.add(
            group=group,
            topic=lag.topic,
            partition=lag.key[1],
            records=lag.records,
            oldest_append_us=lag.oldest_append_us,
            floor=lag.floor,
            end=lag.end,
            retrying=lag.retrying,
            parked=lag.parked,
        )
        self.partitions += 1
        self.looked += lag.looked
        self.group, self.key = group, lag.key
        self._newest = max(self._newest, lag.last_append_us)

    def end(self, now_us: int, following: _Cursor | None) -> groups_pb2.GetLagResponse:
        """Ages are as of this node's time, or of the newest record counted if that is later."""
        answer = self.answer
        answer.as_of_us = max(now_us, self._newest)
        for lag in answer.lags:
            if lag.records:
                lag.seconds = (answer.as_of_us - lag.oldest_append_us) / 1_000_000
        if following is not None:
            answer.next = str(following)
        return answer


def _no_cursor() -> Exception:
    return invalid("after", "after is no place where an answer ended: hand in what `next` said")
