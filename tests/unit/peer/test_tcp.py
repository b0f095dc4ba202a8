"""The peer transport on real loopback sockets."""

import random
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from holdfast.chaos.processes import free_ports
from holdfast.cluster.ports import PeerActive, PeerConnected, PeerDisconnected, PeerMessage, TransportEvent
from holdfast.errors import PortInUseError
from holdfast.rpc.peer.framing import encode_frame
from holdfast.rpc.peer.tcp import TcpTransport
from holdfast.v1 import peer_pb2


class SystemClock:
    monotonic = staticmethod(time.monotonic)

    def wall_us(self) -> int:
        return time.time_ns() // 1000


class Node:
    def __init__(self, name: str, ports: dict[str, int], cluster: str = "c1", **options: int) -> None:
        self.transport = TcpTransport(
            node_id=name,
            cluster_id=cluster,
            boot_id=random.getrandbits(63),
            listen=("127.0.0.1", ports[name]),
            peers={n: ("127.0.0.1", p) for n, p in ports.items()},
            client_address=f"client-of-{name}",
            clock=SystemClock(),
            **options,
        )
        self.transport.start()
        self.seen: list[TransportEvent] = []


def pump(nodes: list[Node], until: Callable[[], bool], seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < deadline, [n.seen for n in nodes]
        for node in nodes:
            events = node.transport.poll(0.005)
            # How long a frame takes is the machine's business.
            node.seen.extend(event for event in events if not isinstance(event, PeerActive))


def message(text: bytes) -> peer_pb2.PeerFrame:
    return peer_pb2.PeerFrame(forward_request=peer_pb2.ForwardRequest(id=7, op=text))


@pytest.fixture
def pair() -> Iterator[tuple[Node, Node]]:
    ports = dict(zip("ab", free_ports(2), strict=True))
    a, b = Node("a", ports), Node("b", ports)
    pump([a, b], lambda: bool(a.seen and b.seen))
    yield a, b
    a.transport.close()
    b.transport.close()


def test_both_sides_learn_of_the_link_and_frames_keep_their_order(pair: tuple[Node, Node]) -> None:
    a, b = pair
    assert a.seen == [PeerConnected("b", "client-of-b")]
    assert b.seen == [PeerConnected("a", "client-of-a")]
    for i in range(200):
        assert a.transport.send("b", message(b"%d" % i))
    assert b.transport.send("a", message(b"x" * 3_000_000))
    pump([a, b], lambda: len(b.seen) == 201 and len(a.seen) == 2)
    texts = [e.frame.forward_request.op for e in b.seen if isinstance(e, PeerMessage)]
    assert texts == [b"%d" % i for i in range(200)]
    assert isinstance(a.seen[1], PeerMessage)
    assert len(a.seen[1].frame.forward_request.op) == 3_000_000
    assert a.transport.backlog("b") == b.transport.backlog("a") == 0


def test_a_dead_peer_is_reported_as_gone_and_redialled(pair: tuple[Node, Node]) -> None:
    a, b = pair
    port = b.transport.address
    assert port is not None
    b.transport.close()
    pump([a], lambda: len(a.seen) == 2)
    assert a.seen[1] == PeerDisconnected("b", refused=True)
    assert a.transport.send("b", message(b"lost")) is False
    own = a.transport.address
    assert own is not None
    again = Node("b", {"a": own[1], "b": port[1]})
    pump([a, again], lambda: len(a.seen) == 3 and len(again.seen) == 1)
    again.transport.close()


def test_backlog_is_bounded_and_overflow_is_dropped() -> None:
    ports = dict(zip("ab", free_ports(2), strict=True))
    a, b = Node("a", ports, max_backlog_bytes=1 << 20), Node("b", ports)
    pump([a, b], lambda: bool(a.seen and b.seen))
    sent = [a.transport.send("b", message(b"x" * 500_000)) for _ in range(60)]
    assert not all(sent)
    assert a.transport.backlog("b") <= (1 << 20) + 500_100
    pump([a, b], lambda: len(b.seen) == 1 + sum(sent))
    a.transport.close()
    b.transport.close()


def test_a_wake_amid_the_draining_of_another_loses_none(pair: tuple[Node, Node]) -> None:
    """Its byte was drained while the flag said that one was there: no wake ended a poll ever after."""
    transport = pair[0].transport

    class Draining:
        def __init__(self, stock: socket.socket) -> None:
            self._stock = stock

        def recv(self, size: int) -> bytes:
            transport.wake()
            return self._stock.recv(size)

    stock = transport._wake_read
    transport.wake()
    transport._wake_read = Draining(stock)  # type: ignore[assignment]
    transport._drain_wakeups()
    transport._wake_read = stock
    transport.wake()
    began = time.monotonic()
    transport.poll(5.0)
    assert time.monotonic() - began < 2.0


def test_wake_ends_a_poll(pair: tuple[Node, Node]) -> None:
    a, _ = pair
    a.transport.wake()
    a.transport.wake()
    started = time.monotonic()
    assert list(a.transport.poll(30.0)) == []
    assert time.monotonic() - started < 10


def stranger(address: tuple[str, int] | None, data: bytes) -> socket.socket:
    assert address is not None
    sock = socket.create_connection(address)
    sock.sendall(data)
    return sock


@pytest.mark.parametrize(
    "hello",
    [
        peer_pb2.Hello(protocol_version=1, cluster_id="other", node_id="a"),
        peer_pb2.Hello(protocol_version=1, cluster_id="c1", node_id="stranger"),
        peer_pb2.Hello(protocol_version=9, cluster_id="c1", node_id="a"),
        peer_pb2.Hello(protocol_version=1, cluster_id="c1", node_id="b"),
    ],
)
def test_foreign_brokers_are_refused_and_the_link_goes_on(
    pair: tuple[Node, Node], hello: peer_pb2.Hello
) -> None:
    a, b = pair
    with stranger(b.transport.address, encode_frame(peer_pb2.PeerFrame(hello=hello))) as sock:
        sock.setblocking(False)
        closed: list[bytes] = []

        def ended() -> bool:
            try:
                closed.append(sock.recv(10))
            except BlockingIOError:
                return False
            except ConnectionResetError:
                closed.append(b"")
            return True

        pump([a, b], ended)
        assert closed == [b""]
    a.transport.send("b", message(b"still here"))
    pump([a, b], lambda: len(b.seen) == 2)
    assert isinstance(b.seen[1], PeerMessage)


def test_random_bytes_on_the_peer_port_harm_nobody(pair: tuple[Node, Node]) -> None:
    a, b = pair
    rng = random.Random(2013)
    for size in (1, 7, 8, 64, 5000):
        for _ in range(10):
            stranger(b.transport.address, rng.randbytes(size)).close()
            pump([a, b], lambda: True)
    a.transport.send("b", message(b"still here"))
    pump([a, b], lambda: any(isinstance(e, PeerMessage) for e in b.seen))
    assert [e for e in b.seen if isinstance(e, PeerDisconnected)] == []


def test_a_taken_port_is_a_clear_error(pair: tuple[Node, Node]) -> None:
    a, _ = pair
    own = a.transport.address
    assert own is not None
    with pytest.raises(PortInUseError, match=str(own[1])):
        Node("b", {"a": 1, "b": own[1]})
