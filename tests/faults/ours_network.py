"""What our peer transport does where faults 24 and 25 hit the stock classes."""

from __future__ import annotations

import ast
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast.cluster.ports import TransportEvent
from holdfast.rpc.peer.framing import HEAD_SIZE, encode_frame
from holdfast.rpc.peer.tcp import PROTOCOL_VERSION, TcpTransport
from holdfast.v1 import peer_pb2

from .stock import Clock
from .stock_network import SlowTick

CLUSTER = "the cluster"


class RealTime:
    def monotonic(self) -> float:
        return time.monotonic()

    def wall_us(self) -> int:
        return time.time_ns() // 1000


@contextmanager
def transport(peers: dict[str, tuple[str, int]]) -> Iterator[TcpTransport]:
    """Node ``a``'s transport, listening on a port of the kernel's choice."""
    made = TcpTransport(
        node_id="a",
        cluster_id=CLUSTER,
        boot_id=1,
        listen=("127.0.0.1", 0),
        peers=peers,
        client_address="a:1",
        clock=RealTime(),
        rng=random.Random(1),
    )
    made.start()
    try:
        yield made
    finally:
        made.close()


def ours_24(patch: pytest.MonkeyPatch, clock: Clock) -> SlowTick:
    """The name server answers nobody: the engine's thread must not be the one that waits."""
    asked, release = threading.Event(), threading.Event()
    threads: list[str] = []

    def getaddrinfo(*args: Any, **kwargs: Any) -> Any:
        threads.append(threading.current_thread().name)
        asked.set()
        release.wait(5.0)
        raise socket.gaierror(socket.EAI_AGAIN, "no answer")

    patch.setattr(socket, "getaddrinfo", getaddrinfo)
    longest = 0.0
    try:
        with transport({"b": ("peer.example", 4321)}) as link:
            for _ in range(20):
                began = time.monotonic()
                link.poll(0.0)
                longest = max(longest, time.monotonic() - began)
            assert asked.wait(5.0), "the name is looked up"
            began = time.monotonic()
            link.poll(0.0)
            longest = max(longest, time.monotonic() - began)
            release.set()
    finally:
        release.set()
    assert threading.current_thread().name not in threads
    return SlowTick(longest, 0.4)


def hello(cluster: str = CLUSTER, node: str = "0") -> bytes:
    return encode_frame(
        peer_pb2.PeerFrame(
            boot_id=5,
            hello=peer_pb2.Hello(protocol_version=PROTOCOL_VERSION, cluster_id=cluster, node_id=node),
        )
    )


def ours_25(sent: Callable[[], bytes]) -> tuple[bytes, list[TransportEvent]]:
    """Somebody connects to the peer port and sends something; what came back, and what the engine saw."""
    events: list[TransportEvent] = []
    received = b""
    with transport({"0": ("127.0.0.1", 1)}) as listener:
        assert listener.address is not None
        with socket.create_connection(listener.address, timeout=1.0) as link:
            link.sendall(sent())
            link.setblocking(False)
            for _ in range(200):
                events += listener.poll(0.005)
                try:
                    data = link.recv(65536)
                except BlockingIOError:
                    if received:
                        break
                    continue
                except ConnectionResetError:
                    break
                if not data:
                    break
                received += data
    return received[HEAD_SIZE:], events


def imports_of(package: Path) -> dict[str, set[str]]:
    """Top-level modules that each file of a package imports."""
    found: dict[str, set[str]] = {}
    for path in sorted(package.rglob("*.py")):
        names: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names.update(alias.name.split(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module.split(".")[0])
        found[str(path)] = names
    return found


def our_sources() -> dict[str, set[str]]:
    root = Path(holdfast.__file__).parent
    found = imports_of(root)
    for layer in ("storage", "cluster", "rpc"):
        found |= imports_of((root / layer).resolve())
    return found
