"""Drives the groups of a leader: proposals, answers, times, and what happens in the log.

``cluster/delivery`` decides everything; here its effects meet the engine and
the event loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from holdfast.cluster.delivery.assignment import PartitionKey
from holdfast.cluster.delivery.batch_cache import BatchCache
from holdfast.cluster.delivery.burial import Burial
from holdfast.cluster.delivery.claims import Claim
from holdfast.cluster.delivery.coordinator import Coordinator
from holdfast.cluster.delivery.live_groups import LiveGroups
from holdfast.cluster.delivery.settings import DeliverySettings
from holdfast.cluster.delivery.surroundings import Surroundings, Token
from holdfast.cluster.ports import Clock, EventSink
from holdfast.cluster.results import Completed, Progress
from holdfast.cluster.state.limits import StateLimits
from holdfast.errors import HoldfastError, UnavailableError
from holdfast.rpc.bridge import EngineBridge
from holdfast.storage.port import Store
from holdfast.v1 import bus_pb2, log_pb2

logger = logging.getLogger(__name__)


class GroupHost:
    """The groups of one leader in one term; an ``Audience`` of the bridge.

    Args:
        plain: the groups of members that speak protocol 0.
    """

    def __init__(
        self,
        term: int,
        store: Store,
        bridge: EngineBridge,
        clock: Clock,
        settings: DeliverySettings,
        limits: StateLimits,
        plain: Coordinator,
        emit: EventSink | None,
    ) -> None:
        self.term = term
        self.plain = plain
        self._bridge = bridge
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._waits: set[asyncio.Task[None]] = set()
        self._over = False
        self._topics_index = bridge.progress.topics_index
        cache = BatchCache(settings.batch_cache_bytes)
        self.live = LiveGroups(
            term,
            Surroundings(
                settings=settings,
                limits=limits,
                read=store.read,
                propose=self._propose,
                stamp_us=clock.wall_us,
                cache=cache,
                letters=Burial(cache),
                emit=emit,
                visible=bridge.progress.visible_index,
            ),
            self._loop.time,
            self._alarm,
        )
        bridge.inform(self)
        bridge.follow_groups(self._changed)

    def end(self, error: HoldfastError) -> None:
        """Leadership is lost, or the broker stops: every stream ends, nothing more is proposed."""
        self._over = True
        self._bridge.inform(None)
        self._bridge.follow_groups(None)
        self.plain.end_all(error)
        self.live.end_all(error)
        if self._timer is not None:
            self._timer.cancel()
        for task in self._waits:
            task.cancel()

    def look(self) -> None:
        """Before a group is asked for something: what can be read by now."""
        self.live.visible(self._bridge.progress.visible_index)

    # -- transactions -----------------------------------------------------------

    def claim(self, consumed: bus_pb2.Consumed) -> SessionClaim:
        """A transaction consumes records of a session.

        Raises:
            HoldfastError: see ``LiveGroups.claim``.
        """
        self.look()
        return SessionClaim(self, self.live.claim(consumed))

    def decided(self, claim: Claim, error: HoldfastError | None) -> None:
        """What became of the transaction."""
        if not self._over:
            self.look()
            index = self._bridge.progress.applied_index
            self.live.decided(claim, error, index)
            self._show_later(index)

    # -- an audience ------------------------------------------------------------

    def reads(self, keys: Iterable[PartitionKey]) -> bool:
        """Whether a group has one of these partitions; from any thread."""
        keys = tuple(keys)
        return self.plain.reads(keys) or self.live.reads(keys)

    def touch(self, keys: Iterable[PartitionKey]) -> None:
        """They have changed."""
        keys = tuple(keys)
        self.plain.touch(keys)
        self.live.touch(keys)

    # -- what happens in the log ----------------------------------------------------

    def _changed(self, groups: frozenset[str]) -> None:
        """Somebody else has changed these groups."""
        if self._over:
            return
        self.look()
        self.live.changed(sorted(groups), self._bridge.progress.applied_index)
        for name in sorted(groups):
            plain = self.plain.groups.get(name)
            if plain is not None:
                self.plain.discard(plain, changed_elsewhere(name))

    def heard(self, progress: Progress) -> None:
        """A topic may have come, gone or changed."""
        if progress.topics_index != self._topics_index and not self._over:
            self._topics_index = progress.topics_index
            self.look()
            self.live.topics_changed(progress.topics_index)

    # -- proposals --------------------------------------------------------------

    def _propose(self, framed: bytes, token: Token) -> None:
        if self._over:
            return  # another leader looks after the group
        try:
            future = self._bridge.propose(framed, self._settings.call_timeout)
        except HoldfastError as error:
            self._loop.call_soon(self._answered, token, Completed(token, None, error, 0))
            return
        future.add_done_callback(lambda done: self._answered(token, done.result()))

    def _answered(self, token: Token, done: Completed) -> None:
        if self._over:
            return
        self.look()
        self.live.answered(token, done)
        self._show_later(done.index)

    def _show_later(self, index: int) -> None:
        if self.live.waits_for_rows:
            # A result may come a moment before its effects can be read.
            task = self._loop.create_task(self._show(index))
            self._waits.add(task)
            task.add_done_callback(self._waits.discard)

    async def _show(self, index: int) -> None:
        try:
            await self._bridge.wait_applied(index, self._settings.call_timeout)
        except HoldfastError as error:
            # Answers that follow bring it here again; without any, nothing would be read.
            logger.warning("the rows of a group cannot be read yet: %s", error)
            return
        if not self._over:
            self.look()

    # -- times --------------------------------------------------------------------

    def _alarm(self, at: float) -> None:
        if self._over:
            return
        if self._timer is not None:
            if self._timer.when() <= at:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(at, self._tick)

    def _tick(self) -> None:
        self._timer = None
        if self._over:
            return
        self.look()
        at = self.live.tick()
        if at is not None:
            self._alarm(at)


class SessionClaim:
    """Records that a transaction under way consumes of a session; made by ``GroupHost.claim``."""

    def __init__(self, host: GroupHost, claim: Claim) -> None:
        self._host = host
        self._claim = claim

    @property
    def settle(self) -> log_pb2.SettleOp:
        """They, with the fences under which they were handed out."""
        return self._claim.settle

    def ended(self, error: HoldfastError | None) -> None:
        """What became of the transaction; None: it is committed."""
        self._host.decided(self._claim, error)


def changed_elsewhere(group: str) -> UnavailableError:
    """What ends the streams of protocol 0: their members come back, and begin from what is so now."""
    return UnavailableError(
        f"group {group!r} was defined, set elsewhere or deleted; subscribe again", metadata={"group": group}
    )
