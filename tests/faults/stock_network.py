"""Faults 24 and 25 on the stock classes: names and strangers."""

from __future__ import annotations

import os
import pickle
import socket
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pysyncobj.dns_resolver
import pysyncobj.transport
from pysyncobj import SyncObjConf

from .stock import Lab, Ledger

#: How long a resolver that nobody answers keeps its caller, by default on Linux.
DEAD_DNS_SECONDS = 10.0


@dataclass
class SlowTick:
    longest_tick_seconds: float
    election_timeout_seconds: float


def stock_24(lab: Lab) -> SlowTick:
    """A peer is named by a host whose DNS server does not answer."""
    real = socket.getaddrinfo

    def getaddrinfo(host: str, *args: Any, **kwargs: Any) -> Any:
        if host == "127.0.0.1":
            return real(host, *args, **kwargs)
        lab.clock.advance(DEAD_DNS_SECONDS)
        raise socket.gaierror(socket.EAI_AGAIN, "no answer")

    lab.patch.setattr(socket, "getaddrinfo", getaddrinfo)
    lab.patch.setattr(pysyncobj.dns_resolver, "_g_resolver", None)
    for module in (pysyncobj.dns_resolver, pysyncobj.transport):
        lab.patch.setattr(module, "monotonicTime", lab.clock.monotonic)
    conf = SyncObjConf(autoTick=False)
    # Of two addresses the greater one connects; a digit sorts before "1".
    node = Ledger(f"127.0.0.1:{free_port()}", ["0-peer.example:4321"], conf=conf)
    longest = 0.0
    for _ in range(3):
        before = lab.clock.now
        node.doTick(0.0)
        longest = max(longest, lab.clock.now - before)
        lab.clock.advance(conf.connectionRetryTime)
    node.destroy()
    return SlowTick(longest, conf.raftMaxTimeout)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


class Payload:
    """Runs ``os.mkdir(path)`` wherever it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, (self.path,)


def stock_frame(message: object) -> bytes:
    """A message as the stock wire carries it."""
    data = zlib.compress(pickle.dumps(message, 2), 3)
    return struct.pack("i", len(data)) + data


@dataclass
class Strangers:
    code_ran: bool
    log_handed_out: list[object]


def stock_25(lab: Lab) -> Strangers:
    """Somebody connects to the peer port; nobody asks who it is."""
    port = free_port()
    node = Ledger(f"127.0.0.1:{port}", [], conf=SyncObjConf(autoTick=False))
    node.doTick(0.0)
    for _ in range(3):
        lab.clock.advance(2.0)
        node.doTick(0.0)
    assert node._isLeader()
    node.put("a secret")
    node.doTick(0.0)
    marker = lab.path / "marker"
    with socket.create_connection(("127.0.0.1", port), timeout=1.0) as link:
        link.sendall(stock_frame(Payload(str(marker))))
        for _ in range(20):
            node.doTick(0.01)
            if marker.exists():
                break
    with socket.create_connection(("127.0.0.1", port), timeout=1.0) as link:
        link.sendall(stock_frame("readonly"))
        link.sendall(
            stock_frame({"type": "next_node_idx", "next_node_idx": 2, "reset": True, "success": False})
        )
        for _ in range(3):
            node.doTick(0.01)
            lab.clock.advance(0.11)
        node.doTick(0.0)
        received = _read_messages(link)
    node.destroy()
    values = [
        pickle.loads(command[1:])[1][0]
        for message in received
        for command, _, _ in message.get("entries", [])
        if command[:1] == b"\x00"
    ]
    return Strangers(marker.exists(), values)


def _read_messages(link: socket.socket) -> list[dict[str, Any]]:
    link.settimeout(0.2)
    data = b""
    try:
        while chunk := link.recv(65536):
            data += chunk
    except TimeoutError:
        pass
    messages = []
    while data:
        (size,) = struct.unpack_from("i", data)
        messages.append(pickle.loads(zlib.decompress(data[4 : 4 + size])))
        data = data[4 + size :]
    return messages
