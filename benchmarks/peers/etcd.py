"""etcd, as a reference for what a fsynced majority costs: three members, and gRPC's own client for Python."""

from __future__ import annotations

import asyncio
import importlib.metadata
import itertools
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from benchmarks.peers import etcd_wire as wire
from benchmarks.peers.processes import Process, free_ports, until
from benchmarks.peers.system import Client, Cluster

#: Where the documented command builds the server; git ignores the folder.
_BUILT = Path(__file__).resolve().parents[1] / ".peers" / "etcd" / "etcd"
_INSTALL = (
    "go build -C benchmarks/peers/etcd_server -o ../../.peers/etcd/etcd go.etcd.io/etcd/server/v3 "
    "(Go 1.26), or apt-get install etcd-server"
)

#: etcd takes 128 operations and 1.5 MiB in one transaction.
_OPERATIONS = 128
_TRANSACTION_BYTES = 1 << 20
#: Transactions of ``publish_all`` that wait for their acknowledgement at a time.
_WINDOW = 32
#: Records in a page of ``Range``, where the server has no ``RangeStream``; payloads in one stay below 16 MB.
_PAGE = 1000
#: Seconds after which a record is tried on another member while nodes may be dying.
_TRY_SECONDS = 0.5

#: Answers may be as large as the server makes them; a member that is back is found at once.
_OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.use_local_subchannel_pool", 1),
]


class EtcdCluster(Cluster):
    """Three members with etcd's defaults, but for a quota of 8 GiB (the documented maximum).

    Heartbeats and election timeout stay at 100 ms and 1 s. Its tuning guide allows less on a fast network,
    but a member that waits for its disk sends no heartbeats: half of both made for elections under load.
    """

    name = "etcd"
    title = "etcd"
    durability = "fsynced on a majority"
    fsynced = True

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._clients: list[int] = []
        self._peers: list[int] = []
        self._nodes: list[Process] = []

    @classmethod
    def missing(cls) -> str | None:
        return None if _binary() else f"no etcd: {_INSTALL}"

    @classmethod
    def version(cls) -> str:
        lines = subprocess.run(
            [_binary() or "etcd", "--version"], capture_output=True, text=True, check=True, timeout=10
        ).stdout.splitlines()
        return f"server {lines[0].rpartition(' ')[2]}, grpcio {importlib.metadata.version('grpcio')}"

    async def start(self) -> None:
        ports = free_ports(6)
        self._clients, self._peers = ports[:3], ports[3:]
        self._nodes = [self._run(node) for node in range(3)]
        await until(self._agreed, 30, "etcd did not elect a leader", self._nodes)

    async def stop(self) -> None:
        await asyncio.gather(*(node.end(2) for node in self._nodes))

    def addresses(self) -> list[str]:
        return [f"127.0.0.1:{port}" for port in self._clients]

    def pids(self) -> list[list[int]]:
        return [node.pids() for node in self._nodes]

    async def leader_of(self, topic: str) -> int:
        """One member leads all keys."""
        leader: int | None = None

        async def known() -> bool:
            nonlocal leader
            leader = await _leader(self.addresses())
            return leader is not None and self._nodes[leader].running

        await until(known, 30, "etcd has no leader")
        assert leader is not None
        return leader

    def kill(self, node: int) -> None:
        self._nodes[node].kill()

    async def restart(self, node: int) -> None:
        """In sync when it answers a linearizable read: it has then applied what the leader had committed."""
        self._nodes[node] = self._run(node)
        await until(partial(self._reads, node), 60, f"member {node} did not come back", self._nodes)

    def _run(self, node: int) -> Process:
        home = self.directory / f"node{node}"
        home.mkdir(exist_ok=True)
        client, peer = (f"http://127.0.0.1:{ports[node]}" for ports in (self._clients, self._peers))
        members = ",".join(f"node{number}=http://127.0.0.1:{port}" for number, port in enumerate(self._peers))
        command = [
            _binary() or "etcd",
            *("--name", f"node{node}", "--data-dir", str(home / "data"), "--log-level", "warn"),
            *("--listen-client-urls", client, "--advertise-client-urls", client),
            *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
            *("--initial-cluster", members, "--initial-cluster-state", "new"),
            *("--quota-backend-bytes", str(8 << 30)),
        ]
        return Process(command, home / "etcd.log", cwd=home)

    async def _agreed(self) -> bool:
        reads = await asyncio.gather(*(self._reads(node) for node in range(3)))
        return all(reads) and await _leader(self.addresses()) is not None

    async def _reads(self, node: int) -> bool:
        async with _Member(self.addresses()[node]) as member:
            try:
                await member.range(wire.RangeRequest(key=b"\0"), timeout=0.5)
            except grpc.aio.AioRpcError:
                return False
            return True


class EtcdClient(Client):
    """A record is a key of its own, sent to the leading member (another one would only pass it on).

    ``publish`` is a ``Put``. ``publish_all`` sends ``Txn`` with up to 128 of them, the most that etcd takes,
    32 at a time. ``replay`` uses ``RangeStream`` (etcd 3.7), before that ``Range`` in pages; keys of one
    client are in the order of its records. ``deliveries`` is a ``Watch``. There are no consumer groups. What
    etcd did not answer is sent again as it was: same key, same value, so it does not matter if it was done.
    """

    def __init__(self, addresses: Sequence[str]) -> None:
        super().__init__(addresses)
        self._members: list[_Member] = []
        self._leading = 0
        self._prefix = b""
        self._numbers = itertools.count()

    async def connect(self) -> None:
        self._members = [_Member(address) for address in self.addresses]
        self._leading = await _leader(self.addresses) or 0
        self._prefix = b"%016x" % time.time_ns()  # the keys of a later client come later

    async def close(self) -> None:
        for member in self._members:
            await member.close()

    async def create(self, topic: str) -> None:
        """Nothing: a topic is a prefix of keys."""

    async def publish(self, topic: str, payload: bytes) -> None:
        await self._members[self._leading].put(self._record(topic, payload))

    async def publish_all(self, topic: str, payloads: Sequence[bytes], times: int) -> None:
        transactions = self._transactions(
            topic, itertools.chain.from_iterable(itertools.repeat(payloads, times))
        )

        async def send() -> None:
            for transaction in transactions:  # shared: each takes the next one
                await self._until_acknowledged("txn", transaction, None)

        async with asyncio.TaskGroup() as group:
            for _ in range(_WINDOW):
                group.create_task(send())

    def _transactions(self, topic: str, payloads: Iterator[bytes]) -> Iterator[Any]:
        operations: list[Any] = []
        size = 0
        for payload in payloads:
            if len(operations) == _OPERATIONS or (operations and size + len(payload) > _TRANSACTION_BYTES):
                yield wire.TxnRequest(success=operations)
                operations, size = [], 0
            operations.append(wire.RequestOp(request_put=self._record(topic, payload)))
            size += len(payload)
        if operations:
            yield wire.TxnRequest(success=operations)

    def _record(self, topic: str, payload: bytes) -> Any:
        key = b"%s/%s%010x" % (topic.encode(), self._prefix, next(self._numbers))
        return wire.PutRequest(key=key, value=payload)

    async def replay(self, topic: str, count: int) -> tuple[int, int]:
        records = size = 0
        async for pairs in self._pages(topic, count):
            values = [pair.value for pair in pairs]
            records += len(values)
            size += sum(map(len, values))
        return records, size

    async def _pages(self, topic: str, count: int) -> AsyncIterator[Sequence[Any]]:
        member = self._members[self._leading]
        key, end = _span(topic)
        stream = member.range_stream(wire.RangeRequest(key=key, range_end=end, limit=count))
        try:
            async for answer in stream:
                yield answer.range_response.kvs
            return
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNIMPLEMENTED:
                raise
        more = True
        while more and count > 0:
            request = wire.RangeRequest(key=key, range_end=end, limit=min(_PAGE, count))
            page = await member.range(request)
            yield page.kvs
            count, more = count - len(page.kvs), page.more
            key = page.kvs[-1].key + b"\0" if more else b""

    async def deliveries(self, topic: str) -> AsyncIterator[Sequence[bytes]]:
        """Raises RuntimeError when the watch is cancelled by the server."""
        key, end = _span(topic)
        watch = self._members[self._leading].watch()
        try:
            await watch.write(
                wire.WatchRequest(create_request=wire.WatchCreateRequest(key=key, range_end=end))
            )
            async for answer in watch:
                if answer.canceled:
                    raise RuntimeError(f"the watch was cancelled: {answer.cancel_reason}")
                if answer.events:
                    yield [event.kv.value for event in answer.events]
        finally:
            watch.cancel()

    async def publish_through_failure(self, topic: str, payload: bytes) -> None:
        """On one member after the other, each given half a second."""
        await self._until_acknowledged("put", self._record(topic, payload), _TRY_SECONDS)

    async def _until_acknowledged(self, call: str, request: Any, timeout: float | None) -> None:
        while True:
            leading = self._leading
            try:
                await getattr(self._members[leading], call)(request, timeout=timeout)
                return
            except grpc.aio.AioRpcError as error:
                if error.code() not in _PASSING:
                    raise
            if self._leading == leading:  # else another record has moved on already
                self._leading = (leading + 1) % len(self._members)
            await asyncio.sleep(0.005)


#: What etcd answers, or gRPC makes of its silence, while it has no leader.
_PASSING = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.UNKNOWN,
}


class _Member:
    """A connection to one member, and the calls that are used. They raise ``grpc.aio.AioRpcError``."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.aio.insecure_channel(address, options=_OPTIONS)
        # Acknowledgements are not parsed: that they came is all there is to know.
        self.put = self._unary("KV/Put", wire.PutRequest, None)
        self.txn = self._unary("KV/Txn", wire.TxnRequest, None)
        self.range = self._unary("KV/Range", wire.RangeRequest, wire.RangeResponse)
        self.status = self._unary("Maintenance/Status", wire.StatusRequest, wire.StatusResponse)
        self.range_stream: Any = self._channel.unary_stream(
            "/etcdserverpb.KV/RangeStream",
            request_serializer=wire.RangeRequest.SerializeToString,
            response_deserializer=wire.RangeStreamResponse.FromString,
        )
        self.watch: Any = self._channel.stream_stream(
            "/etcdserverpb.Watch/Watch",
            request_serializer=wire.WatchRequest.SerializeToString,
            response_deserializer=wire.WatchResponse.FromString,
        )

    def _unary(self, method: str, request: Any, response: Any) -> Any:
        return self._channel.unary_unary(
            f"/etcdserverpb.{method}",
            request_serializer=request.SerializeToString,
            response_deserializer=response and response.FromString,
        )

    async def close(self) -> None:
        await self._channel.close(None)

    async def __aenter__(self) -> _Member:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()


async def _leader(addresses: Sequence[str]) -> int | None:
    """The index of the member that says it leads; None when none does."""

    async def leads(address: str) -> bool:
        async with _Member(address) as member:
            try:
                status = await member.status(wire.StatusRequest(), timeout=2)
            except grpc.aio.AioRpcError:
                return False
            return bool(status.leader == status.header.member_id)

    found = await asyncio.gather(*map(leads, addresses))
    return found.index(True) if True in found else None


def _span(topic: str) -> tuple[bytes, bytes]:
    """The first key of a topic, and the first after it (``0`` follows ``/``)."""
    return f"{topic}/".encode(), f"{topic}0".encode()


def _binary() -> str | None:
    return str(_BUILT) if _BUILT.exists() else shutil.which("etcd")


CLUSTERS: dict[str, type[Cluster]] = {"etcd": EtcdCluster}
CLIENTS: dict[str, type[Client]] = {"etcd": EtcdClient}
