"""Consensus without gRPC: three engines over the brokers' own links, with the real store and its fsync."""

from __future__ import annotations

import gc
import os
import random
import secrets
import shutil
import statistics
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypedDict

from benchmarks.limits.apart import Apart
from benchmarks.peers.processes import free_ports
from holdfast.cluster.commands import encode_op
from holdfast.cluster.engine import Engine
from holdfast.cluster.raft.settings import EngineSettings
from holdfast.cluster.results import Completed, Progress
from holdfast.cluster.state.machine import StateMachine
from holdfast.errors import OverloadedError
from holdfast.records import check_batch, encode_batch
from holdfast.rpc.clock import SystemClock
from holdfast.rpc.malloc import keep_freed_memory
from holdfast.rpc.peer.tcp import TcpTransport
from holdfast.storage.identity import open_store
from holdfast.v1 import log_pb2

_NODES = ("n1", "n2", "n3")
_DEADLINE = 30.0


class Engines(TypedDict):
    """``micros``: median of operations of 100 B one at a time; ``megabytes``: MB/s by operation size."""

    micros: float
    megabytes: dict[str, float]


class _Sink:
    """Releases whoever waits for an operation's end."""

    def __init__(self) -> None:
        self.ended = threading.Semaphore(0)
        self.results: list[log_pb2.OpResult | None] = []

    def deliver(self, completed: Sequence[Completed], progress: Progress) -> None:
        for done in completed:
            if done.error is not None:
                print(f"an operation failed: {done.error}", file=sys.stderr)
            self.results.append(done.result)
        if completed:
            self.ended.release(len(completed))

    def awaits(self, touched: Iterable[tuple[int, int]]) -> bool:
        return False


def node(
    folder: str, node_id: str, ports: list[int], sizes: list[int], rounds: int, seconds: float
) -> Engines:
    """One of the three: the leader measures and returns; the others run until they are killed."""
    sys.setswitchinterval(0.0002)
    keep_freed_memory()
    clock, sink = SystemClock(), _Sink()
    links = {name: ("127.0.0.1", port) for name, port in zip(_NODES, ports, strict=True)}
    store = open_store(Path(folder) / node_id, "limits", node_id, 64 << 30)
    transport = TcpTransport(
        node_id=node_id,
        cluster_id="limits",
        boot_id=secrets.randbits(63) or 1,
        listen=links[node_id],
        peers=links,
        client_address="",
        clock=clock,
    )
    made: list[Engine] = []
    ready = threading.Event()

    def run() -> None:
        # Made where it runs: the store's transaction belongs to the thread.
        engine = Engine(
            settings=EngineSettings(),
            node_id=node_id,
            members=_NODES,
            store=store,
            transport=transport,
            clock=clock,
            rng=random.Random(secrets.randbits(64)),
            machine=StateMachine(),
            sink=sink,
        )
        made.append(engine)
        ready.set()
        engine.run()

    threading.Thread(target=run, name="holdfast-engine", daemon=True).start()
    ready.wait()
    engine = made[0]
    gc.freeze()
    while True:
        status = engine.status()
        if status.leader_id == node_id and all(peer.connected for peer in status.peers):
            break
        time.sleep(0.02)
    create = log_pb2.Op(create_topic=log_pb2.CreateTopicOp(name="limits", partitions=1))
    engine.propose(encode_op(create), None, clock.monotonic() + _DEADLINE)
    sink.ended.acquire()
    result = sink.results[0]
    assert result is not None
    topic = result.topic.id
    micros = _sequential(engine, sink, _operation(topic, 100), rounds)
    rates = {str(size): _pipelined(engine, sink, _operation(topic, size), size, seconds) for size in sizes}
    return Engines(micros=micros, megabytes=rates)


def _operation(topic: int, size: int) -> bytes:
    batch = encode_batch([os.urandom(size)])
    facts = check_batch(batch)
    append = log_pb2.AppendOp(topic_id=topic)
    append.batches.add(partition=0, count=facts.count, length=len(batch))
    return encode_op(log_pb2.Op(append=append), [batch])


def _sequential(engine: Engine, sink: _Sink, operation: bytes, rounds: int) -> float:
    took = []
    for _ in range(rounds):
        began = time.perf_counter()
        engine.propose(operation, None, time.monotonic() + _DEADLINE)
        sink.ended.acquire()
        took.append(time.perf_counter() - began)
    return statistics.median(took[rounds // 5 :]) * 1e6


def _pipelined(engine: Engine, sink: _Sink, operation: bytes, size: int, seconds: float) -> float:
    """MB/s with as much under way as a client of the SDK has at most, or a little more: 2 MB."""
    window = max(5, (2 << 20) // size)
    proposed, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        if proposed >= window:
            sink.ended.acquire()
        try:
            engine.propose(operation, None, time.monotonic() + _DEADLINE)
        except OverloadedError:
            time.sleep(0.001)
            sink.ended.release()
        else:
            proposed += 1
    for _ in range(min(window, proposed)):
        sink.ended.acquire()
    return proposed * size / (time.perf_counter() - began) / 1e6


def alone(folder: str, sizes: list[int], rounds: int, seconds: float) -> Engines:
    """Three processes; what their leader has measured."""
    ports = free_ports(3)
    where = Path(folder) / "engines"
    started: list[Apart] = []
    try:
        for name in _NODES:
            started.append(
                Apart(
                    "benchmarks.limits.engine_alone:node",
                    folder=where,
                    node_id=name,
                    ports=ports,
                    sizes=sizes,
                    rounds=rounds,
                    seconds=seconds,
                )
            )
        for process in started:
            process.begin()
        return _first(started)
    finally:
        for process in started:
            process.end()
        shutil.rmtree(where, ignore_errors=True)


def _first(processes: Sequence[Apart]) -> Engines:
    """The result of whichever gives one."""
    found: list[Engines] = []
    failed: list[str] = []
    done = threading.Event()

    def hear(process: Apart) -> None:
        try:
            found.append(process.heard())
        except RuntimeError as error:
            # Those that do not lead are killed in the end.
            failed.append(str(error))
        done.set()

    for process in processes:
        threading.Thread(target=hear, args=(process,), daemon=True).start()
    done.wait(120)
    if not found:
        raise RuntimeError(f"the engines alone gave no figures {failed}")
    return found[0]
