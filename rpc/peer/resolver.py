"""Name resolution off the engine thread: a dead DNS server must not stall heartbeats."""

from __future__ import annotations

import ipaddress
import queue
import socket
import threading
from collections.abc import Callable

Address = tuple[int, tuple[object, ...]]  # (address family, sockaddr)


class Resolver:
    """Resolves names on a thread of its own; one request per name at a time.

    Args:
        on_result: called on the resolver's thread after every look-up, so that
            the engine thread can be woken.
    """

    def __init__(self, on_result: Callable[[], None]) -> None:
        self._on_result = on_result
        self._asked: set[tuple[str, int]] = set()
        self._answers: dict[tuple[str, int], Address] = {}
        self._lock = threading.Lock()
        self._requests: queue.SimpleQueue[tuple[str, int] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def lookup(self, host: str, port: int) -> Address | None:
        """The address, or None while it is being looked up (or cannot be found)."""
        literal = _literal(host, port)
        if literal is not None:
            return literal
        key = (host, port)
        with self._lock:
            found = self._answers.get(key)
            if found is None and key not in self._asked:
                self._asked.add(key)
                self._requests.put(key)
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="holdfast-dns", daemon=True)
                    self._thread.start()
        return found

    def forget(self, host: str, port: int) -> None:
        """Drop a cached address: a dial failed, the name may point elsewhere now."""
        with self._lock:
            self._answers.pop((host, port), None)

    def close(self) -> None:
        self._requests.put(None)

    def _run(self) -> None:
        while (key := self._requests.get()) is not None:
            try:
                family, _, _, _, sockaddr = socket.getaddrinfo(*key, type=socket.SOCK_STREAM)[0]
            except OSError:
                found: Address | None = None  # asked again at the next dial
            else:
                found = (int(family), tuple(sockaddr))
            with self._lock:
                self._asked.discard(key)
                if found is not None:
                    self._answers[key] = found
            self._on_result()


def _literal(host: str, port: int) -> Address | None:
    try:
        version = ipaddress.ip_address(host).version
    except ValueError:
        return None
    if version == 4:
        return int(socket.AF_INET), (host, port)
    return int(socket.AF_INET6), (host, port, 0, 0)
