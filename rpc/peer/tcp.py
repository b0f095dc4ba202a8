"""``cluster.ports.Transport`` over TCP: one connection per pair of brokers.

The engine thread owns the sockets and waits in ``poll``: an inbound append
wakes it without a detour over the event loop, so replication and heartbeats
never queue behind client load. The broker with the smaller node id dials, the
other listens; a new connection of a peer replaces the old one (which may be
half-open), and frames of the old one are dropped.

Strangers: an inbound connection has ``HANDSHAKE_SECONDS`` to present a valid
Hello of at most ``HELLO_BYTES``; at most ``MAX_PENDING`` may be trying.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import random
import selectors
import socket
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

from holdfast.cluster.ports import (
    Clock,
    PeerActive,
    PeerConnected,
    PeerDisconnected,
    PeerMessage,
    TransportEvent,
)
from holdfast.errors import PortInUseError
from holdfast.rpc.peer.framing import FrameDecoder, FramingError, encode_frame, frame_parts
from holdfast.rpc.peer.resolver import Resolver
from holdfast.v1 import peer_pb2

logger = logging.getLogger(__name__)

PROTOCOL_VERSION = 2
HELLO_BYTES = 4096
HANDSHAKE_SECONDS = 5.0
MAX_PENDING = 32
_READ_BYTES = 1 << 18
_PARTS_AT_ONCE = 64
_READS_PER_POLL = 16  # one busy peer must not keep the others waiting
_DIAL_MIN_SECONDS = 0.03
#: Signs of life of a frame that takes long, at most this often: a heartbeat.
_ACTIVE_SECONDS = 0.05
_DIAL_MAX_SECONDS = 0.5

#: Errors that say "that process is gone", as opposed to "the network is silent".
_GONE = frozenset((errno.ECONNRESET, errno.ECONNREFUSED, errno.EPIPE, errno.ECONNABORTED))


@dataclass(eq=False, slots=True)
class _Connection:
    sock: socket.socket
    decoder: FrameDecoder
    opened_at: float
    node_id: str | None  # the peer dialled; of an inbound one known after its Hello
    connecting: bool = False
    ready: bool = False
    out: deque[memoryview] = field(default_factory=deque)
    out_bytes: int = 0
    partial_since: float | None = None  # bytes of an incomplete frame: the first, or those last told of


@dataclass(slots=True)
class _Peer:
    host: str
    port: int
    connection: _Connection | None = None  # the current, handshaken one
    dialling: _Connection | None = None
    dial_at: float = 0.0
    dial_delay: float = _DIAL_MIN_SECONDS


class TcpTransport:
    """Links to the other voters.

    Args:
        node_id: this broker; ``peers`` are the others, node id to (host, port).
        cluster_id: connections of another cluster are refused.
        boot_id: this run of the process, told in the handshake.
        listen: (host, port) to listen on; port 0 picks one, see ``address``.
            None: no listener (a single node).
        client_address: where clients reach this broker, told to peers.
        clock: for dial and handshake timers.
        rng: spreads the redials.
        max_frame_bytes: the largest frame accepted from a peer.
        max_backlog_bytes: what may wait per peer; further frames are dropped,
            which Raft repairs.

    Raises:
        PortInUseError: by ``start``, when the listen port is taken.
    """

    def __init__(
        self,
        *,
        node_id: str,
        cluster_id: str,
        boot_id: int,
        listen: tuple[str, int] | None,
        peers: Mapping[str, tuple[str, int]],
        client_address: str,
        clock: Clock,
        rng: random.Random | None = None,
        max_frame_bytes: int = 128 << 20,
        max_backlog_bytes: int = 64 << 20,
    ) -> None:
        self._node_id = node_id
        self._cluster_id = cluster_id
        self._listen = listen
        self._clock = clock
        self._rng = rng or random.Random()
        self._max_frame_bytes = max_frame_bytes
        self._max_backlog_bytes = max_backlog_bytes
        self._peers = {name: _Peer(host, port) for name, (host, port) in peers.items() if name != node_id}
        self._hello = encode_frame(
            peer_pb2.PeerFrame(
                boot_id=boot_id,
                hello=peer_pb2.Hello(
                    protocol_version=PROTOCOL_VERSION,
                    cluster_id=cluster_id,
                    node_id=node_id,
                    client_address=client_address,
                ),
            )
        )
        self._selector = selectors.DefaultSelector()
        self._events: list[TransportEvent] = []
        self._pending: list[_Connection] = []  # not yet handshaken
        self._listener: socket.socket | None = None
        self._wake_read, self._wake_write = socket.socketpair()
        self._wake_read.setblocking(False)
        self._wake_write.setblocking(False)
        self._selector.register(self._wake_read, selectors.EVENT_READ, self._wake_read)
        self._awake = False
        self._closed = False
        self._last_frame: peer_pb2.PeerFrame | None = None
        self._last_parts: Sequence[bytes] = ()
        self._resolver = Resolver(self.wake)

    # -- the port -----------------------------------------------------------

    @property
    def address(self) -> tuple[str, int] | None:
        """Where this broker listens for peers, once started."""
        if self._listener is None:
            return None
        host, port = self._listener.getsockname()[:2]
        return str(host), int(port)

    def start(self) -> None:
        if self._listen is None or self._listener is not None:
            return
        host, port = self._listen
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
            listener.listen(64)
        except OSError as error:
            listener.close()
            self.close()
            raise PortInUseError(
                f"cannot listen for peers on {host}:{port}: {error.strerror or error}; "
                "end the process that holds the port or choose another with peer_listen",
                metadata={"port": str(port)},
            ) from error
        listener.setblocking(False)
        self._selector.register(listener, selectors.EVENT_READ, listener)
        self._listener = listener

    def poll(self, timeout: float) -> Sequence[TransportEvent]:
        now = self._clock.monotonic()
        next_timer = self._run_timers(now)
        if self._events:
            timeout = 0.0
        elif next_timer is not None:
            timeout = min(timeout, max(0.0, next_timer - now))
        for key, mask in self._selector.select(max(0.0, timeout)):
            owner = key.data
            if isinstance(owner, _Connection):
                self._serve(owner, mask)
            elif owner is self._listener:
                self._accept()
            else:
                self._drain_wakeups()
        events, self._events = self._events, []
        return events

    def send(self, node_id: str, frame: peer_pb2.PeerFrame) -> bool:
        return self.send_append(node_id, frame, ())

    def send_append(self, node_id: str, frame: peer_pb2.PeerFrame, commands: Sequence[bytes]) -> bool:
        peer = self._peers.get(node_id)
        connection = peer.connection if peer is not None else None
        if connection is None:
            return False
        if frame is not self._last_frame:
            # Followers that keep up get the same frame: it is encoded once.
            self._last_frame, self._last_parts = frame, frame_parts(frame, commands)
        parts = self._last_parts
        if connection.out and connection.out_bytes + sum(map(len, parts)) > self._max_backlog_bytes:
            return False
        self._write(connection, *parts)
        return True

    def backlog(self, node_id: str) -> int:
        peer = self._peers.get(node_id)
        return peer.connection.out_bytes if peer is not None and peer.connection is not None else 0

    def wake(self) -> None:
        # One byte in the pipe is enough however many threads call; see _drain_wakeups.
        if self._awake or self._closed:
            return
        self._awake = True
        # A full pipe wakes as well as one more byte; a pipe that the engine's
        # thread has just closed has nobody to wake.
        with contextlib.suppress(OSError):
            self._wake_write.send(b"\0")

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._resolver.close()
        for peer in self._peers.values():
            for connection in (peer.connection, peer.dialling):
                if connection is not None:
                    connection.sock.close()
        for connection in self._pending:
            connection.sock.close()
        if self._listener is not None:
            self._listener.close()
        self._selector.close()
        self._wake_read.close()
        self._wake_write.close()

    # -- timers: dials and handshakes ------------------------------------------

    def _run_timers(self, now: float) -> float | None:
        """Do what is due; the time of the next thing, if any."""
        due: list[float] = []
        for node_id, peer in self._peers.items():
            if self._node_id < node_id and peer.connection is None and peer.dialling is None:
                if peer.dial_at <= now:
                    self._dial(node_id, peer, now)
                if peer.dialling is None:
                    due.append(peer.dial_at)
        for connection in [c for c in self._pending if now >= c.opened_at + HANDSHAKE_SECONDS]:
            self._drop(connection, gone=False, why="no handshake in time")
        due.extend(c.opened_at + HANDSHAKE_SECONDS for c in self._pending)
        return min(due, default=None)

    def _dial(self, node_id: str, peer: _Peer, now: float) -> None:
        found = self._resolver.lookup(peer.host, peer.port)
        if found is None:
            self._dial_later(peer, now)
            return
        family, sockaddr = found
        sock = socket.socket(family, socket.SOCK_STREAM)
        _tune(sock)
        status = sock.connect_ex(sockaddr)
        if status not in (0, errno.EINPROGRESS):
            sock.close()
            self._resolver.forget(peer.host, peer.port)
            self._dial_later(peer, now)
            return
        connection = _Connection(sock, FrameDecoder(HELLO_BYTES), now, node_id, connecting=True)
        peer.dialling = connection
        self._pending.append(connection)
        self._selector.register(sock, selectors.EVENT_READ | selectors.EVENT_WRITE, connection)

    def _dial_later(self, peer: _Peer, now: float) -> None:
        peer.dial_at = now + peer.dial_delay * (0.75 + 0.5 * self._rng.random())
        peer.dial_delay = min(_DIAL_MAX_SECONDS, peer.dial_delay * 2)

    # -- sockets ------------------------------------------------------------------

    def _accept(self) -> None:
        assert self._listener is not None
        with contextlib.suppress(BlockingIOError, ConnectionError):
            sock, _ = self._listener.accept()
            if len(self._pending) >= MAX_PENDING:
                sock.close()
                return
            _tune(sock)
            connection = _Connection(sock, FrameDecoder(HELLO_BYTES), self._clock.monotonic(), None)
            self._pending.append(connection)
            self._selector.register(sock, selectors.EVENT_READ, connection)

    def _drain_wakeups(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while len(self._wake_read.recv(64)) == 64:
                pass
        # After the pipe is empty: a byte that came in between would be gone with the flag still up,
        # and no wake would write another one. A wake that saw the flag up is served by this poll.
        self._awake = False

    def _serve(self, connection: _Connection, mask: int) -> None:
        if connection.sock.fileno() < 0:
            return  # dropped earlier in this poll
        if mask & selectors.EVENT_WRITE:
            if connection.connecting:
                status = connection.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if status:
                    self._drop(connection, gone=status in _GONE, why=os.strerror(status))
                    return
                connection.connecting = False
                self._selector.modify(connection.sock, selectors.EVENT_READ, connection)
                self._write(connection, self._hello)
            else:
                self._flush(connection)
        if mask & selectors.EVENT_READ and connection.sock.fileno() >= 0:
            self._read(connection)

    def _read(self, connection: _Connection) -> None:
        for _ in range(_READS_PER_POLL):
            try:
                data = connection.sock.recv(_READ_BYTES)
            except BlockingIOError:
                return
            except OSError as error:
                self._drop(connection, gone=error.errno in _GONE, why=str(error))
                return
            if not data:
                self._drop(connection, gone=True, why="closed by the peer")
                return
            complete = False
            try:
                for frame, commands in connection.decoder.feed(data):
                    complete = True
                    self._on_frame(connection, frame, commands)
                    if connection.sock.fileno() < 0:
                        return
            except FramingError as error:
                self._drop(connection, gone=False, why=str(error))
                return
            if complete:
                connection.partial_since = None
            elif connection.ready:
                self._note_partial(connection)
            if len(data) < _READ_BYTES:
                return

    def _note_partial(self, connection: _Connection) -> None:
        """A frame takes long to arrive: say now and then that it does."""
        now = self._clock.monotonic()
        if connection.partial_since is None:
            connection.partial_since = now
        elif now - connection.partial_since >= _ACTIVE_SECONDS:
            assert connection.node_id is not None
            connection.partial_since = now
            self._events.append(PeerActive(connection.node_id))

    def _write(self, connection: _Connection, *parts: bytes) -> None:
        sent = 0
        if not connection.out:
            try:
                sent = connection.sock.sendmsg(parts)
            except BlockingIOError:
                pass
            except OSError:
                # Nothing is dropped here: the selector reports the same error
                # and ``poll`` ends the connection in one place.
                pass
        for part in parts:
            if sent >= len(part):
                sent -= len(part)
                continue
            if not connection.out:
                self._selector.modify(
                    connection.sock, selectors.EVENT_READ | selectors.EVENT_WRITE, connection
                )
            connection.out.append(memoryview(part)[sent:])
            connection.out_bytes += len(part) - sent
            sent = 0

    def _flush(self, connection: _Connection) -> None:
        out = connection.out
        try:
            while out:
                sent = connection.sock.sendmsg(list(islice(out, _PARTS_AT_ONCE)))
                connection.out_bytes -= sent
                while out and sent >= len(out[0]):
                    sent -= len(out.popleft())
                if sent:
                    out[0] = out[0][sent:]
                    return
        except BlockingIOError:
            return
        except OSError as error:
            self._drop(connection, gone=error.errno in _GONE, why=str(error))
            return
        self._selector.modify(connection.sock, selectors.EVENT_READ, connection)

    # -- the handshake --------------------------------------------------------------

    def _on_frame(
        self, connection: _Connection, frame: peer_pb2.PeerFrame, commands: Sequence[bytes]
    ) -> None:
        if connection.ready:
            assert connection.node_id is not None
            self._events.append(PeerMessage(connection.node_id, frame, commands))
            return
        hello = frame.hello
        refusal = self._refusal(connection, frame)
        if refusal is not None:
            logger.warning("refused a peer connection: %s", refusal)
            self._drop(connection, gone=False, why=refusal)
            return
        peer = self._peers[hello.node_id]
        inbound = connection.node_id is None
        if peer.connection is not None:
            self._drop(peer.connection, gone=False, why="replaced by a newer connection")
        connection.node_id = hello.node_id
        connection.ready = True
        connection.decoder.max_frame_bytes = self._max_frame_bytes
        self._pending.remove(connection)
        peer.connection, peer.dialling = connection, None
        peer.dial_delay = _DIAL_MIN_SECONDS
        if inbound:
            self._write(connection, self._hello)
        self._events.append(PeerConnected(hello.node_id, hello.client_address))

    def _refusal(self, connection: _Connection, frame: peer_pb2.PeerFrame) -> str | None:
        if frame.WhichOneof("body") != "hello":
            return "the first frame is not Hello"
        hello = frame.hello
        if hello.protocol_version != PROTOCOL_VERSION:
            return f"peer protocol {hello.protocol_version}; this broker speaks {PROTOCOL_VERSION}"
        if hello.cluster_id != self._cluster_id:
            return f"broker of cluster {hello.cluster_id!r}; this one is of {self._cluster_id!r}"
        if hello.node_id not in self._peers:
            return f"node {hello.node_id!r} is not a member of this cluster"
        if connection.node_id is not None and connection.node_id != hello.node_id:
            return f"dialled {connection.node_id!r}, reached {hello.node_id!r}"
        if connection.node_id is None and self._node_id < hello.node_id:
            return f"{hello.node_id!r} must wait to be dialled"
        return None

    def _drop(self, connection: _Connection, *, gone: bool, why: str) -> None:
        if connection.sock.fileno() >= 0:
            self._selector.unregister(connection.sock)
            connection.sock.close()
        if connection in self._pending:
            self._pending.remove(connection)
        connection.out.clear()
        connection.out_bytes = 0
        peer = self._peers.get(connection.node_id) if connection.node_id is not None else None
        if peer is None:
            return
        if peer.dialling is connection:
            peer.dialling = None
            self._resolver.forget(peer.host, peer.port)
        if peer.connection is connection:
            assert connection.node_id is not None
            logger.info("link to %s lost: %s", connection.node_id, why)
            peer.connection = None
            self._events.append(PeerDisconnected(connection.node_id, refused=gone))
        self._dial_later(peer, self._clock.monotonic())


def _tune(sock: socket.socket) -> None:
    """Low latency, and a silent link is noticed in seconds rather than hours."""
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        ("TCP_KEEPIDLE", 1),
        ("TCP_KEEPINTVL", 1),
        ("TCP_KEEPCNT", 3),
        ("TCP_USER_TIMEOUT", 4000),
    ):
        if hasattr(socket, option):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
