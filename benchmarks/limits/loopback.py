"""What the machine gives between two processes on loopback TCP, and inside one: copies of memory."""

from __future__ import annotations

import os
import socket
import statistics
import threading
import time
from typing import TypedDict


class Link(TypedDict):
    """µs of a round trip of 100 B, and MB/s one way in writes of 64 KiB and 1 MiB."""

    micros: float
    megabytes_64k: float
    megabytes_1m: float


def _serve(listener: socket.socket) -> None:
    """The far end, forked off: echo 100 B, then swallow what comes and tell its end."""
    sock, _ = listener.accept()
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    buffer = bytearray(1 << 20)
    while True:
        got = sock.recv_into(buffer)
        if got == 0:
            return
        if got == 100:
            sock.sendall(buffer[:100])


def link(rounds: int, seconds: float) -> Link:
    """Two processes, one thread each, blocking sockets."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        child = os.fork()
        if child == 0:
            try:
                _serve(listener)
            finally:
                os._exit(0)
        try:
            with socket.create_connection(listener.getsockname()) as sock:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                took = []
                for _ in range(rounds):
                    before = time.perf_counter()
                    sock.sendall(b"x" * 100)
                    sock.recv(100, socket.MSG_WAITALL)
                    took.append(time.perf_counter() - before)
                rates = [_rate(sock, size, seconds) for size in (1 << 16, 1 << 20)]
        finally:
            os.waitpid(child, 0)
    return Link(micros=statistics.median(took) * 1e6, megabytes_64k=rates[0], megabytes_1m=rates[1])


def _rate(sock: socket.socket, size: int, seconds: float) -> float:
    block = bytes(size)
    sent, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        sock.sendall(block)
        sent += size
    return sent / (time.perf_counter() - began) / 1e6


def copies(seconds: float, size: int = 1 << 20) -> float:
    """GB/s copied by one thread, between buffers that do not fit the processor's caches together."""
    source = [os.urandom(size) for _ in range(64)]
    target = bytearray(size * 64)
    view = memoryview(target)
    count, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        at = count % 64
        view[at * size : (at + 1) * size] = source[at]
        count += 1
    return count * size / (time.perf_counter() - began) / 1e9


def hand_over(rounds: int = 5000) -> float:
    """µs to wake another thread of the same process through a pipe and be woken by it: half a round trip."""
    ours, theirs = socket.socketpair()

    def answer() -> None:
        while data := theirs.recv(1):
            theirs.send(data)

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    took = []
    for _ in range(rounds):
        before = time.perf_counter()
        ours.send(b"x")
        ours.recv(1)
        took.append(time.perf_counter() - before)
    ours.close()
    thread.join()
    theirs.close()
    return statistics.median(took) * 1e6 / 2
