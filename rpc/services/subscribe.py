"""Subscribe: consuming as a member of a group.

The leader coordinates every group in memory; what must outlive it are the
committed offsets, which are log entries. A follower pipes the stream to the
leader. When leadership goes, sessions end and clients come back to the new
leader, which starts from the committed offsets.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

import grpc

from holdfast.cluster.commands import encode_op
from holdfast.cluster.delivery.assignment import PartitionKey
from holdfast.cluster.delivery.coordinator import Coordinator
from holdfast.cluster.delivery.events import OffsetsCommitted, OffsetsTrimmed, SessionEnded
from holdfast.cluster.delivery.group import Group, Opening
from holdfast.cluster.delivery.hello import check_start
from holdfast.cluster.delivery.members import Flow, Member
from holdfast.cluster.delivery.positions import first_record_at, resolve
from holdfast.cluster.delivery.reading import PartitionRef
from holdfast.cluster.delivery.settings import DeliverySettings
from holdfast.cluster.ports import Clock, EventSink
from holdfast.cluster.results import Progress, Role
from holdfast.cluster.state.limits import StateLimits
from holdfast.errors import (
    DeadlineExceededError,
    FailedPreconditionError,
    FencedError,
    HoldfastError,
    LimitExceededError,
    NoLeaderError,
    NotDeliveredError,
    OverloadedError,
    UnavailableError,
    UnknownPartitionError,
    UnknownTopicError,
)
from holdfast.rpc.bridge import EngineBridge, unwrap
from holdfast.rpc.clock import SystemClock
from holdfast.rpc.egress import Egress, EgressStream
from holdfast.rpc.services.group_host import GroupHost, SessionClaim, changed_elsewhere
from holdfast.rpc.services.handlers import Context, parse
from holdfast.rpc.services.member_session import MemberSession
from holdfast.rpc.services.subscribe_pipe import (
    FORWARDED,
    ChannelFactory,
    LeaderPipe,
    RemoteStatusError,
    insecure_channel,
)
from holdfast.rpc.services.subscribe_session import Session, check_size
from holdfast.rpc.services.topic_cache import TopicCache
from holdfast.rpc.status import abort, invalid
from holdfast.rpc.topology import Topology
from holdfast.storage import flows, groups, partitions, topics
from holdfast.storage.damage import DamagedRowError
from holdfast.storage.port import Reader, Store
from holdfast.storage.topics import TopicRow
from holdfast.v1 import bus_pb2, log_pb2

_MAX_NAME = 249
_RETRY_S = 0.02
_MAX_RETRY_S = 1.0


class SubscribeService:
    """``EventBus.Subscribe`` on any node; ``close`` it before the server stops.

    Args:
        store: read in short snapshots.
        bridge: proposals, barriers, and reports of the engine.
        cache: topics, looked up when a subscription starts.
        topology: where the leader's clients connect.
        settings: the bounds.
        emit: where events go.
        connect: makes channels to other brokers.
        egress: bounds what is on its way; shared by all streams of a node.
        limits: of the state machine.
    """

    def __init__(
        self,
        store: Store,
        bridge: EngineBridge,
        cache: TopicCache,
        topology: Topology,
        settings: DeliverySettings | None = None,
        emit: EventSink | None = None,
        connect: ChannelFactory = insecure_channel,
        egress: Egress | None = None,
        clock: Clock | None = None,
        limits: StateLimits | None = None,
    ) -> None:
        self._store = store
        self._bridge = bridge
        self._topics = cache
        self._topology = topology
        self._settings = own = settings or DeliverySettings()
        self._egress = egress or Egress(
            own.max_outgoing_bytes, own.max_outgoing_bytes_per_peer, own.stalled_after
        )
        self._emit = emit
        self._clock = clock or SystemClock()
        self._limits = limits or StateLimits()
        self._host: GroupHost | None = None
        self._pipe = LeaderPipe(topology.node_id, connect)
        self._committers: dict[Group, asyncio.Task[None]] = {}
        self._sessions = 0
        self._closed = False
        self._unlisten = bridge.listen(self._on_progress)

    @property
    def sessions(self) -> int:
        """Subscriptions on this node, piped ones included."""
        return self._sessions

    def in_flight(self) -> dict[str, int]:
        """Records members of defined groups have, per group, where this node leads; from any thread."""
        host = self._host
        return {} if host is None else host.live.in_flight()

    async def close(self) -> None:
        """End every session; clients are told to go to another broker."""
        if self._closed:
            return
        self._closed = True
        self._unlisten()
        self._end_all(UnavailableError("the broker is stopping; use another one"))
        for task in list(self._committers.values()):
            task.cancel()
        await asyncio.gather(*self._committers.values(), return_exceptions=True)
        await self._pipe.close()

    def claim(self, consumed: bus_pb2.Consumed) -> SessionClaim:
        """A transaction consumes records of a session that ends here (``transact.Sessions``).

        Raises:
            NotDeliveredError: no such session: this node has not led since it began.
            HoldfastError: the records are not its own, or not any more.
        """
        host = self._host
        if host is None or host.term != self._bridge.progress.term:
            raise NotDeliveredError(
                f"no session {consumed.session[:40]!r} at this broker; join the group anew",
                metadata={"group": consumed.group},
            )
        return host.claim(consumed)

    async def subscribe(self, requests: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
        """Serialised SubscribeRequests in, serialised SubscribeResponses out.

        A failed call ends with the status of the HoldfastError: unknown topics,
        malformed messages, limits; UNAVAILABLE with the leader when it changed.
        """
        if self._sessions >= self._settings.max_sessions:
            await abort(context, OverloadedError(f"{self._sessions} subscriptions on this broker; try again"))
        self._sessions += 1
        message = b""
        try:
            async with aclosing(self._serve(requests, context)) as messages:
                async for message in messages:
                    yield message
        except grpc.aio.AbortError:
            raise
        except RemoteStatusError as error:
            del message  # see abort
            await error.pass_on(context)
        except Exception as error:  # noqa: BLE001  (reported to the caller as a status)
            del message  # see abort
            await abort(context, error)
        finally:
            self._sessions -= 1

    async def _serve(self, requests: AsyncIterator[bytes], context: Context) -> AsyncGenerator[bytes, None]:
        first = await self._first(requests)
        check_size(first, self._settings)
        start = _parse_start(first)
        if not start.protocol:
            _check_plain(start, self._settings)
        if self._closed:
            raise UnavailableError("the broker is stopping; use another one")
        egress = self._egress.stream(context.peer())
        if self._bridge.progress.role is Role.LEADER:
            lead = self._lead_member if start.protocol else self._lead
            answers = lead(start, requests, egress)
        else:
            forwarded = any(key == FORWARDED for key, _ in context.invocation_metadata() or ())
            answers = self._pipe.run(self._leader_address(forwarded), first, requests, egress)
        async with aclosing(answers) as messages:
            async for message in messages:
                yield message

    async def _first(self, requests: AsyncIterator[bytes]) -> bytes:
        try:
            async with asyncio.timeout(self._settings.call_timeout):
                return await anext(requests)
        except StopAsyncIteration:
            raise invalid("start", "a subscription begins with a SubscribeStart") from None
        except TimeoutError:
            raise DeadlineExceededError("no SubscribeStart came") from None

    def _leader_address(self, forwarded: bool) -> str:
        leader = self._bridge.progress.leader_id
        if leader is None or leader == self._topology.node_id:
            raise NoLeaderError("no leader is known; try again")
        address = self._topology.client_address(leader)
        if address is None or forwarded:
            raise _moved(leader, address)
        return address

    # -- on the leader ----------------------------------------------------------

    async def _lead(
        self, start: bus_pb2.SubscribeStart, requests: AsyncIterator[bytes], egress: EgressStream
    ) -> AsyncGenerator[bytes, None]:
        timeout = self._settings.call_timeout
        # Everything the leaders before this one committed must be visible.
        await self._bridge.barrier(timeout)
        rows = [await self._topics.find(name, timeout) for name in start.topics]
        host = self._coordinate()
        self._check_undefined(host, start.group)
        coordinator = host.plain
        group = coordinator.group(start.group)
        wake = asyncio.Event()
        member = Member(
            id=group.new_member_id(),
            name=start.consumer_name,
            topics={row.id: row.name for row in rows},
            credits=start.credits,
            notify=wake.set,
        )
        session = Session(
            self._store,
            group,
            member,
            wake,
            self._settings,
            records=start.format == bus_pb2.FORMAT_RECORDS,
            commit=self._commit_soon,
            repaired=self._bridge.read_repaired,
            emit=self._emit,
            egress=egress,
        )
        listener: asyncio.Task[None] | None = None
        try:
            self._join(group, member, rows, start)
            listener = asyncio.create_task(session.listen(requests))
            async with aclosing(session.messages()) as messages:
                async for message in messages:
                    yield message
        finally:
            if listener is not None:
                listener.cancel()
            group.leave(member)
            if group.commit_due:
                self._commit_soon(group)
            coordinator.forget_if_idle(group)
            if self._emit is not None:
                reason = "" if member.ended is None else member.ended.reason
                self._emit(SessionEnded(group.name, member.name, reason))

    async def _lead_member(
        self, start: bus_pb2.SubscribeStart, requests: AsyncIterator[bytes], egress: EgressStream
    ) -> AsyncGenerator[bytes, None]:
        hello = check_start(start, max_credits=self._settings.max_credits)
        await self._bridge.barrier(self._settings.call_timeout)
        host = self._coordinate()
        if start.group in host.plain.groups:
            raise FailedPreconditionError(
                f"members of group {start.group!r} consume it without a definition; end them first"
            )
        host.look()
        wake = asyncio.Event()
        session = host.live.join(hello, wake.set)
        stream = MemberSession(
            host,
            session,
            wake,
            self._store,
            self._settings,
            records=start.format == bus_pb2.FORMAT_RECORDS,
            repaired=self._bridge.read_repaired,
            emit=self._emit,
            egress=egress,
        )
        listener = asyncio.create_task(stream.listen(requests))
        try:
            async with aclosing(stream.messages()) as messages:
                async for message in messages:
                    yield message
        finally:
            listener.cancel()
            host.look()
            host.live.leave(session, orderly=stream.orderly, garbage=stream.garbage)
            if self._emit is not None:
                reason = "" if session.ended is None else session.ended.reason
                self._emit(SessionEnded(start.group, start.consumer_name, reason))

    def _check_undefined(self, host: GroupHost, group: str) -> None:
        """A defined group has no members that know nothing of leases."""
        try:
            with self._store.read() as reader:
                row = groups.read(reader, group)
        except DamagedRowError:
            # Not to be mended here: the group's first commit ends this node, which has to start over.
            row = None
        if (row is not None and row.definition) or group in host.live.groups:
            raise FailedPreconditionError(
                f"group {group!r} is defined: join it (Client.join, protocol 2), or use another group"
            )

    def _coordinate(self) -> GroupHost:
        progress = self._bridge.progress
        if progress.role is not Role.LEADER or self._closed:
            raise _moved(progress.leader_id, self._topology.client_address(progress.leader_id))
        if self._host is None or self._host.term != progress.term:
            self._end_all(_moved(None, None))
            self._host = GroupHost(
                progress.term,
                self._store,
                self._bridge,
                self._clock,
                self._settings,
                self._limits,
                Coordinator(progress.term, self._settings, self._emit),
                self._emit,
            )
        return self._host

    def _join(
        self, group: Group, member: Member, rows: list[TopicRow], start: bus_pb2.SubscribeStart
    ) -> None:
        fences: dict[PartitionKey, int] = {}
        with self._store.read() as reader:

            def opening(key: PartitionKey) -> Opening:
                fences[key] = flows.read(reader, group.name, *key).fence
                return self._opening(reader, group.name, member.topics[key[0]], key, start)

            group.join(member, {row.id: row.partitions for row in rows}, opening)
        for key, fence in fences.items():
            group.flows[key].fence = fence
        if group.commit_due:
            self._commit_soon(group)

    def _opening(
        self, reader: Reader, group: str, topic: str, key: PartitionKey, start: bus_pb2.SubscribeStart
    ) -> Opening:
        """Where the group starts in a partition it has no member in."""
        ref = PartitionRef(topic, *key)
        state = partitions.read_state(reader, *key)
        if state is None:
            raise UnknownTopicError(f"topic {topic!r} was deleted", metadata={"topic": topic})
        committed = groups.committed(reader, group, *key)
        if committed is None:
            if not start.HasField("initial"):
                return state.start_offset, None
            offset = resolve(reader, ref, state, start.initial, "record")
            if start.initial.WhichOneof("position") == "time_us":
                offset = first_record_at(reader, ref, offset, start.initial.time_us)
            return offset, None
        if committed < state.start_offset:
            if self._emit is not None:
                self._emit(OffsetsTrimmed(group, topic, ref.partition, committed, state.start_offset))
            return state.start_offset, committed
        return committed, committed

    def _on_progress(self, progress: Progress) -> None:
        host = self._host
        if host is not None:
            if progress.role is Role.LEADER and progress.term == host.term:
                host.heard(progress)
                return
            leader = progress.leader_id
            self._end_all(_moved(leader, self._topology.client_address(leader)))
        if self._pipe.active and progress.leader_id is not None:
            self._pipe.leader_is(self._topology.client_address(progress.leader_id))

    def _end_all(self, error: HoldfastError) -> None:
        host, self._host = self._host, None
        if host is not None:
            host.end(error)

    # -- commits ----------------------------------------------------------------

    def _commit_soon(self, group: Group) -> None:
        """Acks are waiting: commit them together with those that come right after."""
        if group not in self._committers and not self._closed:
            self._committers[group] = asyncio.create_task(self._commit(group))

    async def _commit(self, group: Group) -> None:
        try:
            await self._commit_all(group)
        finally:
            # In the step that last saw nothing due, not in a callback of the task: an ack that came
            # in between would find a committer, and nobody would commit it.
            self._committers.pop(group, None)

    async def _commit_all(self, group: Group) -> None:
        host = self._host
        coordinator = None if host is None else host.plain
        loop = asyncio.get_running_loop()
        retry = _RETRY_S
        while coordinator is not None and host is self._host and group.commit_due:
            began = loop.time()
            await asyncio.sleep(self._settings.commit_delay)
            taken = group.collect_commit()
            try:
                unwrap(await self._bridge.propose(_commit_op(group, taken), self._settings.call_timeout))
            except (UnknownTopicError, UnknownPartitionError) as error:
                group.commit_failed(taken)
                self._drop_deleted(group, taken, error)
            except FencedError:
                coordinator.discard(group, changed_elsewhere(group.name))
                return
            except HoldfastError as error:
                if not error.retriable:
                    coordinator.discard(group, error)
                    return
                group.commit_failed(taken)
                await asyncio.sleep(retry)
                retry = min(retry * 2, _MAX_RETRY_S)
            else:
                retry = _RETRY_S
                group.commit_done(taken)
                if self._emit is not None:
                    self._emit(OffsetsCommitted(group.name, len(taken), loop.time() - began))
        if coordinator is not None:
            coordinator.forget_if_idle(group)

    def _drop_deleted(self, group: Group, taken: list[tuple[Flow, int]], error: HoldfastError) -> None:
        with self._store.read() as reader:
            doomed = {flow.key[0] for flow, _ in taken if topics.read(reader, flow.key[0]) is None}
        for topic_id in doomed:
            group.drop_topic(topic_id, error)


def _commit_op(group: Group, taken: list[tuple[Flow, int]]) -> bytes:
    offsets = [
        log_pb2.GroupOffset(topic_id=flow.key[0], partition=flow.partition, offset=offset, fence=flow.fence)
        for flow, offset in taken
    ]
    return encode_op(log_pb2.Op(commit_offsets=log_pb2.CommitOffsetsOp(group=group.name, offsets=offsets)))


def _parse_start(raw: bytes) -> bus_pb2.SubscribeStart:
    request = parse(bus_pb2.SubscribeRequest, raw)
    if request.WhichOneof("kind") != "start":
        raise invalid("start", "a subscription begins with a SubscribeStart")
    start = request.start
    if start.format not in (bus_pb2.FORMAT_RECORDS, bus_pb2.FORMAT_BATCHES):
        raise invalid("start.format", f"unknown format {start.format}")
    return start


def _check_plain(start: bus_pb2.SubscribeStart, settings: DeliverySettings) -> None:
    """The hello of a member of protocol 0."""
    if not start.group or len(start.group) > _MAX_NAME:
        raise invalid("start.group", f"a group's name has 1 to {_MAX_NAME} characters")
    if len(start.consumer_name) > _MAX_NAME:
        raise invalid("start.consumer_name", f"a consumer's name has at most {_MAX_NAME} characters")
    if not start.topics:
        raise invalid("start.topics", "name at least one topic")
    if len(start.topics) > settings.max_topics_per_member:
        raise invalid("start.topics", f"at most {settings.max_topics_per_member} topics")
    if len(set(start.topics)) != len(start.topics):
        raise invalid("start.topics", "a topic is named twice")
    if start.credits > settings.max_credits:
        raise LimitExceededError(f"{start.credits} credits; a member may hold {settings.max_credits}")
    if start.HasField("initial") and start.initial.WhichOneof("position") not in (
        "earliest",
        "latest",
        "time_us",
    ):
        raise invalid("start.initial", "a group starts at the earliest, the latest, or a time")


def _moved(leader: str | None, address: str | None) -> NoLeaderError:
    facts = {} if leader is None else {"leader": leader}
    if address is not None:
        facts["leader_address"] = address
    where = "" if leader is None else f"; the leader is {leader}"
    return NoLeaderError(f"this node does not lead{where}; subscribe there", metadata=facts)
