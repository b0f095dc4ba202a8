"""Kafka: three combined KRaft nodes of the Apache release, and confluent-kafka (librdkafka) as the client."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import importlib.util
import random
import shutil
import threading
import time
import uuid
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from benchmarks.peers.processes import Process, free_ports, until
from benchmarks.peers.system import Client, Cluster

with contextlib.suppress(ImportError):  # KafkaCluster.missing() says how to install it
    import confluent_kafka
    from confluent_kafka.admin import AdminClient, ClusterMetadata, NewTopic  # type: ignore[attr-defined]

#: Where the server's jars are put by INSTALL; git ignores the folder.
JARS = Path(__file__).resolve().parents[1] / ".peers" / "kafka"
INSTALL = (
    "apt-get install default-jre-headless maven; "
    "mvn -q dependency:copy-dependencies -f benchmarks/peers/kafka_server; pip install -e '.[bench]'"
)

#: As ``kafka-run-class`` and ``kafka-server-start`` set them; the last keeps the JVM's counters out of /tmp.
_JVM = (
    *("-server", "-Xms1G", "-Xmx1G", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20"),
    *("-XX:InitiatingHeapOccupancyPercent=35", "-XX:+ExplicitGCInvokesConcurrent"),
    *("-Djava.awt.headless=true", "-XX:+PerfDisableSharedMem"),
)

_PROPERTIES = """\
process.roles=broker,controller
node.id={node}
controller.quorum.voters={voters}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={data}
num.partitions=1
default.replication.factor=3
min.insync.replicas=2
unclean.leader.election.enable=false
auto.create.topics.enable=false
offsets.topic.replication.factor=3
offsets.topic.num.partitions=1
group.initial.rebalance.delay.ms=0
auto.leader.rebalance.enable=false
message.max.bytes=10485760
replica.fetch.max.bytes=10485760
socket.send.buffer.bytes=1048576
socket.receive.buffer.bytes=1048576
replica.socket.receive.buffer.bytes=1048576
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
"""

_LOG4J = """\
<Configuration status="warn">
  <Appenders><Console name="out"><PatternLayout pattern="%d %p %m (%c)%n%ex{5}"/></Console></Appenders>
  <Loggers><Root level="warn"><AppenderRef ref="out"/></Root></Loggers>
</Configuration>
"""


_WARM_UP_SECONDS = 5


class KafkaCluster(Cluster):
    """Three nodes that are broker and controller at once.

    Settings that are not Kafka's defaults, and why: ``min.insync.replicas=2`` with three replicas (its
    documented durable set-up); a heap of 1 GiB and G1 (its start script's defaults); batches of up to 10 MB
    for clients and followers, socket buffers of 1 MiB (the documented levers for throughput); a dead broker
    is noticed after 3 s instead of 9 s (``broker.session.timeout.ms``), or failover would measure little
    but that wait; no delay before a group's first rebalance. An acknowledgement waits for every replica *in
    sync*: all three, two while one is down.
    """

    name = "kafka"
    title = "Kafka, acks=all, not fsynced"
    durability = "in the page cache of every replica in sync (at least 2 of 3)"
    fsynced = False

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._ports: list[int] = []
        self._nodes: list[Process] = []

    @classmethod
    def missing(cls) -> str | None:
        absent = [
            what
            for what, found in (
                ("java", shutil.which("java")),
                ("Kafka's jars", next(JARS.glob("kafka_2.13-*.jar"), None)),
                ("confluent-kafka", importlib.util.find_spec("confluent_kafka")),
            )
            if not found
        ]
        return f"no {', no '.join(absent)}: {INSTALL}" if absent else None

    @classmethod
    def version(cls) -> str:
        server = next(JARS.glob("kafka_2.13-*.jar")).stem.partition("-")[2]
        client = importlib.metadata.version("confluent-kafka")
        return f"server {server}, confluent-kafka {client} (librdkafka {confluent_kafka.libversion()[0]})"

    async def start(self) -> None:
        ports = free_ports(6)
        self._ports, controllers = ports[:3], ports[3:]
        voters = ",".join(f"{node}@127.0.0.1:{port}" for node, port in enumerate(controllers))
        cluster = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=").replace("-", "A")
        for node in range(3):
            home = self._home(node)
            home.mkdir(parents=True)
            (home / "log4j2.xml").write_text(_LOG4J)
            (home / "server.properties").write_text(
                _PROPERTIES.format(
                    node=node,
                    voters=voters,
                    port=self._ports[node],
                    controller_port=controllers[node],
                    data=home / "data",
                )
            )
        await asyncio.gather(*(self._format(node, cluster) for node in range(3)))
        self._nodes = [self._run(node) for node in range(3)]
        await until(self._brokers_are_up, 180, "Kafka did not start", self._nodes)
        await self._warm_up()

    async def stop(self) -> None:
        await asyncio.gather(*(node.end(5) for node in self._nodes))

    def addresses(self) -> list[str]:
        return [f"127.0.0.1:{port}" for port in self._ports]

    def pids(self) -> list[list[int]]:
        return [node.pids() for node in self._nodes]

    async def leader_of(self, topic: str) -> int:
        leader = -1

        async def known() -> bool:
            nonlocal leader
            live = [at for at, node in zip(self.addresses(), self._nodes, strict=True) if node.running]
            found = await asyncio.to_thread(_metadata, live, topic)
            partitions = found.topics[topic].partitions if found else {}
            leader = partitions[0].leader if partitions else -1
            return leader >= 0 and self._nodes[leader].running

        await until(known, 30, f"topic {topic} has no leader")
        return leader

    def kill(self, node: int) -> None:
        self._nodes[node].kill()

    async def restart(self, node: int) -> None:
        self._nodes[node] = self._run(node)
        await until(partial(self._in_sync, node), 180, f"node {node} did not come back in sync", self._nodes)

    def _home(self, node: int) -> Path:
        return self.directory / f"node{node}"

    def _java(self, node: int, main: str, *arguments: str) -> list[str]:
        home = self._home(node)
        return [
            "java",
            *_JVM,
            f"-Djava.io.tmpdir={home}",
            f"-Dlog4j2.configurationFile={home / 'log4j2.xml'}",
            *("-cp", f"{JARS}/*", main, *arguments),
        ]

    def _run(self, node: int) -> Process:
        home = self._home(node)
        command = self._java(node, "kafka.Kafka", str(home / "server.properties"))
        return Process(command, home / "server.log", cwd=home)

    async def _format(self, node: int, cluster: str) -> None:
        home = self._home(node)
        arguments = ("format", "--cluster-id", cluster, "--config", str(home / "server.properties"))
        process = Process(
            self._java(node, "kafka.tools.StorageTool", *arguments), home / "format.log", cwd=home
        )

        async def formatted() -> bool:
            return (home / "data" / "meta.properties").exists() and not process.running

        try:
            await until(formatted, 120, "Kafka's storage tool failed")
        finally:
            process.kill()

    async def _brokers_are_up(self) -> bool:
        found = await asyncio.to_thread(_metadata, self.addresses())
        return found is not None and len(found.brokers) == 3

    async def _warm_up(self) -> None:
        """Let the JVMs compile what they will run, each node as a leader."""
        client = KafkaClient(self.addresses())
        topics = [f"warm-up-{node}" for node in range(3)]
        for node, topic in enumerate(topics):
            await client.create(topic, leader=node)
        payloads = [random.randbytes(100)] * _CHUNK
        deadline = time.monotonic() + _WARM_UP_SECONDS
        while time.monotonic() < deadline:
            for topic in topics:
                await client.publish_all(topic, payloads, 1)
                await asyncio.gather(*(client.publish(topic, payloads[0]) for _ in range(50)))
                await client.replay(topic, _CHUNK)
        await client.close()
        await asyncio.to_thread(client.delete, topics)

    async def _in_sync(self, node: int) -> bool:
        """As the node itself sees it: the others may not have noticed yet that it was away."""
        found = await asyncio.to_thread(_metadata, self.addresses()[node : node + 1])
        return (
            found is not None
            and len(found.brokers) == 3
            and all(
                len(partition.isrs) == 3
                for topic in found.topics.values()
                for partition in topic.partitions.values()
            )
        )


class KafkaFsyncCluster(KafkaCluster):
    """The same nodes; its client's topics have ``flush.messages=1``: each replica fsyncs what it appends,
    before it says so."""

    name = "kafka-fsync"
    title = "Kafka, acks=all, flush.messages=1"
    durability = "fsynced by every replica in sync (at least 2 of 3)"
    fsynced = True


def _metadata(addresses: Sequence[str], topic: str | None = None) -> ClusterMetadata | None:
    """What a broker among ``addresses`` knows of the cluster; None when none of them answers."""
    admin = AdminClient({"bootstrap.servers": ",".join(addresses), "log_level": 0})
    try:
        return admin.list_topics(topic, timeout=3) if topic else admin.list_topics(timeout=3)
    except confluent_kafka.KafkaException:
        return None


#: What producers and consumers share. A broken connection is tried again soon and says nothing on stderr:
#: what it means for a record comes back with that record.
_COMMON: dict[str, Any] = {
    "socket.nagle.disable": True,
    "reconnect.backoff.max.ms": 500,
    "log_level": 2,
}
_PRODUCER = {**_COMMON, "acks": "all", "enable.idempotence": True, "compression.type": "none"}

#: Records handed to librdkafka in one call; how many of them (or such calls) may wait for acknowledgement.
_CHUNK = 10_000
_CHUNK_BYTES = 8 << 20
_WINDOW = 100_000
_WINDOW_CHUNKS = 8
#: Seconds without any message after which reading fails.
_PATIENCE = 30


class KafkaClient(Client):
    """librdkafka through confluent-kafka, its blocking calls in threads.

    ``publish``: a producer with ``linger.ms=0``, a delivery report per record. ``publish_all``:
    ``produce_batch`` (the newest and fastest call) with ``linger.ms=5``, batches of up to 1 MB and reports of
    failures only, which is librdkafka's documented way to save a callback per record: when ``flush()`` leaves
    nothing and nothing failed, all are acknowledged. Both are idempotent, the default of Kafka's own client.
    Reading: ``consume()`` of many messages at a time, fetches of up to 8 MB, 256 MB fetched ahead.
    """

    topic_config: ClassVar[dict[str, str]] = {}

    def __init__(self, addresses: Sequence[str]) -> None:
        super().__init__(addresses)
        self._bootstrap = {"bootstrap.servers": ",".join(addresses)}
        self._publisher: _Publisher | None = None
        self._bulk: confluent_kafka.Producer | None = None
        self._bulk_errors: list[confluent_kafka.KafkaError] = []
        self._flushing: asyncio.Task[int] | None = None
        self._replaying: list[confluent_kafka.Consumer] = []

    async def connect(self) -> None:
        """A client that only reads has no producer, one that only publishes has no consumer: see there."""

    async def close(self) -> None:
        if self._publisher:
            await self._publisher.close()
        for consumer in self._replaying:
            await asyncio.to_thread(consumer.close)

    async def create(self, topic: str, leader: int | None = None) -> None:
        """Producers are connected here, too: whoever creates a topic publishes to it."""
        await asyncio.to_thread(self._create, topic, leader)
        if self._publisher is None:
            self._publisher = _Publisher(self._bootstrap)
        await asyncio.to_thread(self._bulk_producer().list_topics, topic, 30)
        await asyncio.to_thread(self._publisher.producer.list_topics, topic, 30)

    def _create(self, topic: str, leader: int | None) -> None:
        admin = AdminClient({**_COMMON, **self._bootstrap})
        config = {"retention.ms": "-1", **self.topic_config}
        replicas: dict[str, Any] = {"replication_factor": 3}
        if leader is not None:
            replicas = {"replica_assignment": [[leader, (leader + 1) % 3, (leader + 2) % 3]]}
        new = NewTopic(topic, num_partitions=1, config=config, **replicas)
        admin.create_topics([new])[topic].result(30)
        for _ in range(300):
            partition = admin.list_topics(topic, timeout=5).topics[topic].partitions.get(0)
            if partition and partition.leader >= 0 and len(partition.isrs) == 3:
                return
            threading.Event().wait(0.1)
        raise TimeoutError(f"topic {topic} was not led by a broker within 30 s")

    def delete(self, topics: Sequence[str]) -> None:
        """Blocks until they are gone."""
        admin = AdminClient({**_COMMON, **self._bootstrap})
        for deleted in admin.delete_topics(list(topics)).values():
            deleted.result(30)

    async def publish(self, topic: str, payload: bytes) -> None:
        if self._publisher is None:
            self._publisher = _Publisher(self._bootstrap)
        await self._publisher.publish(topic, payload)

    async def publish_through_failure(self, topic: str, payload: bytes) -> None:
        """librdkafka tries again by itself, for up to ``delivery.timeout.ms`` (five minutes)."""
        await self.publish(topic, payload)

    async def publish_all(self, topic: str, payloads: Sequence[bytes], times: int) -> None:
        producer = self._bulk_producer()
        if len(payloads) * times <= _CHUNK:
            self._produce(producer, topic, payloads, times)
        else:
            await asyncio.to_thread(self._produce, producer, topic, payloads, times)
        # flush() ends when nothing at all is waiting: one serves every call that is under way.
        while len(producer):
            if self._flushing is None or self._flushing.done():
                self._flushing = asyncio.create_task(asyncio.to_thread(producer.flush, 60))
            await asyncio.shield(self._flushing)
            if self._bulk_errors:
                break
        if self._bulk_errors:
            raise confluent_kafka.KafkaException(self._bulk_errors[0])

    def _bulk_producer(self) -> confluent_kafka.Producer:
        if self._bulk is None:
            self._bulk = confluent_kafka.Producer(
                {
                    **_PRODUCER,
                    **self._bootstrap,
                    "linger.ms": 5,
                    "batch.size": 1_000_000,
                    "batch.num.messages": 100_000,
                    "queue.buffering.max.messages": 10 * _WINDOW,
                    "queue.buffering.max.kbytes": 1 << 20,
                    "delivery.report.only.error": True,
                    "on_delivery": self._failed,
                }
            )
        return self._bulk

    @staticmethod
    def _produce(
        producer: confluent_kafka.Producer, topic: str, payloads: Sequence[bytes], times: int
    ) -> None:
        for chunk, window in _chunks(payloads, times):
            while len(producer) > window:
                producer.poll(0.005)
            queued = producer.produce_batch(topic, chunk, partition=0)
            if queued != len(chunk):
                raise RuntimeError(f"{len(chunk) - queued} of {len(chunk)} records did not fit the queue")

    def _failed(self, error: confluent_kafka.KafkaError | None, message: confluent_kafka.Message) -> None:
        if error is not None:
            self._bulk_errors.append(error)

    def _consumer(self, group: str, **settings: object) -> confluent_kafka.Consumer:
        return confluent_kafka.Consumer(
            {
                **_COMMON,
                **self._bootstrap,
                "group.id": group,
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "queued.min.messages": 1_000_000,
                "queued.max.messages.kbytes": 1 << 18,
                "fetch.queue.backoff.ms": 20,
                "max.partition.fetch.bytes": 8 << 20,
                "fetch.max.bytes": 16 << 20,
                **settings,
            }
        )

    async def replay(self, topic: str, count: int) -> tuple[int, int]:
        return await asyncio.to_thread(self._replay, topic, count)

    def _replay(self, topic: str, count: int) -> tuple[int, int]:
        """With a consumer that an earlier replay connected, if there is one."""
        consumer = self._replaying.pop() if self._replaying else self._consumer("replay")
        consumer.assign([confluent_kafka.TopicPartition(topic, 0, confluent_kafka.OFFSET_BEGINNING)])
        records = size = 0
        while records < count:
            messages = consumer.consume(min(_CHUNK, count - records), timeout=_PATIENCE)
            # A message of this client holds its payload as bytes from the start; len() is the payload's.
            records += _checked(messages)
            size += sum(map(len, messages))
        consumer.unassign()
        self._replaying.append(consumer)
        return records, size

    async def consume(self, topic: str, group: str, count: int) -> int:
        return await asyncio.to_thread(self._consume, topic, group, count)

    def _consume(self, topic: str, group: str, count: int) -> int:
        """Commits behind each batch without waiting, and waits for the last commit."""
        consumer = self._consumer(group)
        try:
            consumer.subscribe([topic])
            records = 0
            while records < count:
                messages = consumer.consume(min(_CHUNK, count - records), timeout=_PATIENCE)
                records += _checked(messages)
                if records < count:
                    consumer.commit(message=messages[-1], asynchronous=True)
                else:
                    consumer.commit(message=messages[-1], asynchronous=False)
            return records
        finally:
            consumer.close()

    def deliveries(self, topic: str) -> AsyncIterator[Sequence[bytes]]:
        consumer = self._consumer("deliveries")
        partition = confluent_kafka.TopicPartition(topic, 0)
        # The end is looked up now: OFFSET_END would be resolved later, and miss what is published until then.
        partition.offset = consumer.get_watermark_offsets(partition, timeout=30)[1]
        consumer.assign([partition])
        return _deliver(consumer)


class KafkaFsyncClient(KafkaClient):
    topic_config: ClassVar[dict[str, str]] = {"flush.messages": "1"}


def _chunks(payloads: Sequence[bytes], times: int) -> Iterator[tuple[list[dict[str, bytes]], int]]:
    """The records of ``publish_all`` for ``produce_batch``, each chunk with how many may wait before it."""
    messages = [{"value": payload} for payload in payloads]
    size = max(1, min(_CHUNK, _CHUNK_BYTES * len(payloads) // max(1, sum(map(len, payloads)))))
    window = min(_WINDOW, _WINDOW_CHUNKS * size)
    whole = max(1, min(times, size // len(messages)))
    repeated = messages * whole
    for _ in range(times // whole):
        for first in range(0, len(repeated), size):
            yield repeated[first : first + size], window
    for _ in range(times % whole):
        yield messages, window


def _checked(messages: Sequence[confluent_kafka.Message]) -> int:
    """Their number. Raises KafkaException for an error among them, TimeoutError for none at all."""
    if not messages:
        raise TimeoutError(f"no message came for {_PATIENCE} s")
    for message in messages:
        error = message.error()
        if error is not None:
            raise confluent_kafka.KafkaException(error)
    return len(messages)


async def _deliver(consumer: confluent_kafka.Consumer) -> AsyncIterator[Sequence[bytes]]:
    """Hand over what a thread consumes: the first message as soon as it is there, and what else there is."""
    loop = asyncio.get_running_loop()
    arrived: asyncio.Queue[list[confluent_kafka.Message]] = asyncio.Queue()
    ended = threading.Event()

    def consume() -> None:
        try:
            while not ended.is_set():
                first = consumer.poll(0.1)
                if first is not None:
                    messages = [first, *consumer.consume(_CHUNK, timeout=0)]
                    loop.call_soon_threadsafe(arrived.put_nowait, messages)
        finally:
            loop.call_soon_threadsafe(arrived.put_nowait, [])  # a failure is not to be waited out
            consumer.close()

    thread = threading.Thread(target=consume, name="kafka-deliveries", daemon=True)
    thread.start()
    try:
        while True:
            messages = await arrived.get()
            _checked(messages)
            yield [message.value() or b"" for message in messages]
    finally:
        ended.set()
        await asyncio.to_thread(thread.join)


class _Publisher:
    """Records one by one: a thread waits for reports, and wakes the event loop once for all that it got."""

    def __init__(self, bootstrap: dict[str, Any]) -> None:
        self.producer = confluent_kafka.Producer({**_PRODUCER, **bootstrap, "linger.ms": 0})
        self._loop = asyncio.get_running_loop()
        self._reports: list[tuple[asyncio.Future[None], confluent_kafka.KafkaError | None]] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._poll, name="kafka-reports", daemon=True)
        self._thread.start()

    async def publish(self, topic: str, payload: bytes) -> None:
        future = self._loop.create_future()
        self.producer.produce(topic, payload, partition=0, on_delivery=partial(self._reported, future))
        await future

    async def close(self) -> None:
        self._ended.set()
        await asyncio.to_thread(self._thread.join)

    def _poll(self) -> None:
        while not self._ended.is_set():
            self.producer.poll(0.1)
            self._wake()

    def _reported(
        self,
        future: asyncio.Future[None],
        error: confluent_kafka.KafkaError | None,
        message: confluent_kafka.Message,
    ) -> None:
        self._reports.append((future, error))

    def _wake(self) -> None:
        if self._reports:
            reports, self._reports = self._reports, []
            self._loop.call_soon_threadsafe(_settle, reports)


def _settle(reports: Sequence[tuple[asyncio.Future[None], confluent_kafka.KafkaError | None]]) -> None:
    for future, error in reports:
        if future.done():  # its caller was cancelled
            continue
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(confluent_kafka.KafkaException(error))


CLUSTERS: dict[str, type[Cluster]] = {"kafka": KafkaCluster, "kafka-fsync": KafkaFsyncCluster}
CLIENTS: dict[str, type[Client]] = {"kafka": KafkaClient, "kafka-fsync": KafkaFsyncClient}
