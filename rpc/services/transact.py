"""Transact: records published and consumed ones settled, all or nothing, in one log entry.

Any node proposes a transaction. One that consumes by a session is passed on to
the leader, which knows the sessions and their leases. Whether the records are
settled already is decided by the log alone.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Protocol

from holdfast.cluster.group_definition import Ordering
from holdfast.cluster.ports import EventSink
from holdfast.cluster.state.group_view import definition_of
from holdfast.cluster.state.limits import StateLimits
from holdfast.cluster.state.names import check_name
from holdfast.errors import (
    DuplicateKeysError,
    FencedError,
    HoldfastError,
    NotDeliveredError,
    OutcomeUnknownError,
    OverloadedError,
)
from holdfast.rpc.admission import Admission
from holdfast.rpc.bridge import EngineBridge, unwrap
from holdfast.rpc.events import TransactHandled
from holdfast.rpc.services.handlers import Context, parse
from holdfast.rpc.services.leader_call import LeaderCall
from holdfast.rpc.services.leader_channel import RemoteStatusError
from holdfast.rpc.services.publish_request import PublishEncoder
from holdfast.rpc.services.topic_cache import TopicCache
from holdfast.rpc.services.transact_request import Transaction, check_request, too_large
from holdfast.rpc.settings import Limits
from holdfast.rpc.status import abort, invalid
from holdfast.storage import flows, groups, marks
from holdfast.storage.port import Reader, Store
from holdfast.storage.topics import TopicRow
from holdfast.v1 import bus_pb2, log_pb2

PATH = f"/{bus_pb2.DESCRIPTOR.services_by_name['EventBus'].full_name}/Transact"

#: Proposals of one transaction: others may store records under its idempotency keys in between.
_ROUNDS = 4


class Claim(Protocol):
    """Records a session has given up to a transaction under way: until that has ended they neither

    expire nor are handed out.
    """

    @property
    def settle(self) -> log_pb2.SettleOp:
        """They, as runs of offsets, with the fences under which they were handed out."""
        ...

    def ended(self, error: HoldfastError | None) -> None:
        """Called once: the transaction is committed (None) or was refused; with OUTCOME_UNKNOWN or
        DEADLINE_EXCEEDED nobody knows.
        """
        ...


class Sessions(Protocol):
    """The members whose streams end at this node."""

    def claim(self, consumed: bus_pb2.Consumed) -> Claim:
        """Take records out of a session.

        Raises:
            NotDeliveredError: no such session, or it was not handed all of them.
            LeaseExpiredError, FencedError: they are not its any more.
        """
        ...


class TransactService:
    """``EventBus.Transact`` on any node.

    Args:
        store: read in short snapshots.
        bridge: the engine.
        cache: topics.
        encoder: checks and encodes records; the one of publishes.
        admission: bounds what this node has in flight; the one of publishes.
        limits: of this broker.
        leader: passes calls on.
        state: bounds of the state.
        emit: where events go; None: nowhere.

    Attributes:
        sessions: where consumption by session is looked up; None: this node has none.
    """

    def __init__(
        self,
        store: Store,
        bridge: EngineBridge,
        cache: TopicCache,
        encoder: PublishEncoder,
        admission: Admission,
        limits: Limits,
        leader: LeaderCall,
        state: StateLimits | None = None,
        emit: EventSink | None = None,
    ) -> None:
        self.sessions: Sessions | None = None
        self._store = store
        self._bridge = bridge
        self._topics = cache
        self._encoder = encoder
        self._admission = admission
        self._limits = limits
        self._leader = leader
        self._state = state or StateLimits()
        self._emit = emit

    async def transact(self, raw: bytes, context: Context) -> bytes:
        """One serialised TransactRequest to one serialised TransactResponse.

        Refused, nothing is done: ALREADY_SETTLED, FENCED, LEASE_EXPIRED and NOT_DELIVERED for records that
        are somebody else's now, TRANSACTION_TOO_LARGE, and whatever a publish may be refused with. After
        OUTCOME_UNKNOWN and DEADLINE_EXCEEDED the same transaction may be tried again for a minute.
        """
        try:
            left = context.time_remaining()
            timeout = self._limits.default_deadline_ms / 1000 if left is None else left
            return await self._transact(raw, context, timeout)
        except RemoteStatusError as error:
            del raw  # see abort
            await error.pass_on(context)
            raise AssertionError("abort returned") from None  # it always raises
        except Exception as error:  # noqa: BLE001  (reported to the caller as a status)
            del raw  # see abort
            await abort(context, error)

    async def _transact(self, raw: bytes, context: Context, timeout: float) -> bytes:
        size = len(raw)
        if size > self._limits.max_inflight_bytes:
            raise too_large("bytes", size, self._state.max_transaction_bytes)
        self._admission.enter(size)
        try:
            request = parse(bus_pb2.TransactRequest, raw)
            check_request(request, self._state)
            for item in request.consume:
                _check_consumed(item)
            if not self._leader.leads and any(item.session for item in request.consume):
                return await self._leader.unary(PATH, raw, context, timeout)
            return (await self._measured(request, timeout)).SerializeToString()
        finally:
            self._admission.leave(size)

    async def _measured(self, request: bus_pb2.TransactRequest, timeout: float) -> bus_pb2.TransactResponse:
        started = time.perf_counter()
        reason = ""
        try:
            return await self._run(request, asyncio.get_running_loop().time() + timeout)
        except HoldfastError as error:
            reason = error.reason
            raise
        finally:
            if self._emit is not None:
                self._emit(TransactHandled(time.perf_counter() - started, reason))

    async def _run(self, request: bus_pb2.TransactRequest, deadline: float) -> bus_pb2.TransactResponse:
        names = [item.topic for item in request.appends]
        names += [place.topic for item in request.consume for place in item.places]
        rows = {name: self._topics.cached(name) or await self._find(name, deadline) for name in names}
        claims: list[Claim] = []
        # What the claims are told when this call itself is cancelled: the operation goes on.
        outcome: HoldfastError | None = OutcomeUnknownError("the caller did not wait for the answer")
        try:
            try:
                consume = [self._settle(item, rows, claims) for item in request.consume]
            except HoldfastError as refused:
                response = await self._done_before(request, rows, refused, deadline)
            else:
                transaction = Transaction(request, rows, consume, self._encoder, self._state)
                response = await self._propose(transaction, deadline)
            outcome = None
            return response
        except HoldfastError as error:
            outcome = error
            raise
        finally:
            for claim in claims:
                claim.ended(outcome)

    async def _propose(self, transaction: Transaction, deadline: float) -> bus_pb2.TransactResponse:
        for _ in range(_ROUNDS):
            if not transaction.left:
                break
            done = await self._bridge.propose(transaction.op(), _until(deadline))
            if done.result is not None and done.result.error.reason == DuplicateKeysError.reason:
                transaction.repeated(done.result.marked)
                continue
            result, index = unwrap(done)
            if result.transact.repeated_call:
                return await self._recall(transaction, result.transact, index, deadline)
            transaction.stored(result.transact)
        if transaction.left:
            raise OverloadedError("others publish the same idempotency keys at the same time; try again")
        return transaction.answer()

    async def _recall(
        self, transaction: Transaction, result: log_pb2.TransactResult, index: int, deadline: float
    ) -> bus_pb2.TransactResponse:
        await self._bridge.wait_applied(index, _until(deadline))
        with self._store.read() as reader:
            return transaction.recalled(
                # Whether a mark's time is over matters to new records only.
                result,
                lambda topic_id, digest: marks.read(reader, topic_id, digest, 0),
            )

    async def _done_before(
        self,
        request: bus_pb2.TransactRequest,
        rows: Mapping[str, TopicRow],
        refused: HoldfastError,
        deadline: float,
    ) -> bus_pb2.TransactResponse:
        """The answer when an earlier call has done it: then its records are not the session's any more.

        Raises:
            HoldfastError: ``refused``, when none has.
        """
        index = await self._bridge.barrier(_until(deadline))
        with self._store.read() as reader:
            known = marks.read_transaction(reader, request.transaction_id, 0)
        if known is None:
            raise refused
        transaction = Transaction(request, rows, (), self._encoder, self._state)
        return await self._recall(transaction, log_pb2.TransactResult.FromString(known), index, deadline)

    async def _find(self, name: str, deadline: float) -> TopicRow:
        return await self._topics.find(name, _until(deadline))

    # -- what is consumed ---------------------------------------------------------

    def _settle(
        self, consumed: bus_pb2.Consumed, rows: Mapping[str, TopicRow], claims: list[Claim]
    ) -> log_pb2.SettleOp:
        """
        Raises:
            HoldfastError: the records cannot be consumed like this.
        """
        if not consumed.session:
            with self._store.read() as reader:
                return _settle_places(reader, consumed, rows)
        if self.sessions is None:
            raise NotDeliveredError(
                f"no session {consumed.session[:40]!r} at this broker; subscribe anew, they come again",
                metadata={"group": consumed.group},
            )
        claim = self.sessions.claim(consumed)
        claims.append(claim)
        return claim.settle


def _settle_places(
    reader: Reader, consumed: bus_pb2.Consumed, rows: Mapping[str, TopicRow]
) -> log_pb2.SettleOp:
    """Records by their places, of whoever has them.

    Raises:
        FencedError: a partition has an owner, and the caller does not say it is the one.
    """
    row = groups.read(reader, consumed.group)
    definition = None if row is None else definition_of(row)
    owned = definition is None or definition.ordering is Ordering.PARTITION
    settle = log_pb2.SettleOp(group=consumed.group)
    for place in consumed.places:
        topic_id = rows[place.topic].id
        flow = flows.read(reader, consumed.group, topic_id, place.partition)
        if owned and flow.owner and not place.fence:
            raise FencedError(
                f"topic {place.topic!r} partition {place.partition} is owned by a member of group "
                f"{consumed.group!r}: consume by its session, or name the fence it was assigned with",
                metadata={"group": consumed.group, "topic": place.topic, "partition": str(place.partition)},
            )
        settle.flows.add(
            topic_id=topic_id,
            partition=place.partition,
            # Without an owner still the present one: a seek in between fences this out.
            fence=place.fence or flow.fence,
            base=place.base,
            runs=place.runs,
        )
    return settle


def _check_consumed(consumed: bus_pb2.Consumed) -> None:
    """
    Raises:
        InvalidArgumentError: neither by session nor by place, or both.
    """
    check_name(consumed.group, what="group", field="consume.group")
    if consumed.session:
        if consumed.places:
            raise invalid("consume.places", "records are named by session and slot, or by place, not both")
        if not consumed.offsets:
            raise invalid("consume.offsets", "nothing is consumed")
    elif consumed.offsets:
        raise invalid("consume.session", "slots and leases are those of a session: name it")
    elif not consumed.places:
        raise invalid("consume.places", "nothing is consumed")


def _until(deadline: float) -> float:
    return max(0.0, deadline - asyncio.get_running_loop().time())
