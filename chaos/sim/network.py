"""Links between simulated nodes: in order or not at all, with loss, delay, cuts and silence."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from holdfast.chaos.sim.world import NodeClock, World
from holdfast.cluster.ports import PeerActive, PeerConnected, PeerDisconnected, PeerMessage, TransportEvent
from holdfast.rpc.peer.append_wire import append_parts, open_append
from holdfast.v1 import peer_pb2

#: How often a receiver looks at a frame that is still coming in.
_TRICKLE_SECONDS = 0.05

#: Looks at every frame that is sent, which may lack the commands that travel beside it; returns
#: the frame to carry, or None to lose it.
Tap = Callable[[str, str, peer_pb2.PeerFrame], peer_pb2.PeerFrame | None]


#: Frames that an attacker of the transport's promise may deliver twice; forwarded requests are
#: not among them, because only the transport keeps those from happening twice.
_GHOSTLY = frozenset(
    {
        "append",
        "append_reply",
        "vote_request",
        "vote_reply",
        "snapshot_chunk",
        "snapshot_reply",
        "timeout_now",
    }
)
_KEPT = 600


class _Carried(NamedTuple):
    """A frame on its way, as bytes: nodes share no objects.

    Attributes:
        apart: sent with its commands beside it, and so handed over, by the code that TCP's links use.
    """

    data: bytes
    apart: bool

    @classmethod
    def of(cls, frame: peer_pb2.PeerFrame, commands: Sequence[bytes]) -> _Carried:
        if commands:
            return cls(b"".join(append_parts(frame, commands)), True)
        return cls(frame.SerializeToString(), False)

    def message(self, sender: str) -> PeerMessage:
        opened = open_append(self.data) if self.apart else None
        if opened is None:
            return PeerMessage(sender, peer_pb2.PeerFrame.FromString(self.data))
        return PeerMessage(sender, *opened)


@dataclass
class _Link:
    """One direction between two nodes.

    Attributes:
        blocked: nothing passes in this direction, and nobody notices.
        heard: a frame has arrived since the link came up.
        latency: seconds, uniform; None: as the network's.
        lane: of its frames, see ``World.at``.
        kept: the latest frames that were sent and their kinds, for ``haunt`` and ``echo``.
    """

    epoch: int = 0
    up: bool = False
    silent: bool = False
    blocked: bool = False
    heard: bool = False
    last_arrival: float = 0.0
    latency: tuple[float, float] | None = None
    lane: str = ""
    kept: deque[tuple[str, _Carried]] = field(default_factory=lambda: deque(maxlen=_KEPT))


class SimNetwork:
    """All links. Latency is uniform in ``latency``; ``loss`` is a probability per frame."""

    def __init__(self, world: World, node_ids: Sequence[str]) -> None:
        self.world = world
        self.node_ids = list(node_ids)
        self.latency = (0.0002, 0.0008)
        self.loss = 0.0
        #: Probability that a frame arrives twice (not those that only the transport keeps single).
        self.duplicate = 0.0
        #: Bytes per second and direction; None: as fast as the latency.
        self.bandwidth: float | None = None
        self.taps: list[Tap] = []
        #: Keep what was sent, so that ``haunt`` and ``echo`` have something to deliver again.
        self.keep_frames = False
        self.frames_sent = 0
        self.bytes_sent = 0
        self._rng = world.stream("network")
        self._links = {(a, b): _Link(lane=f"{a} > {b}") for a in node_ids for b in node_ids if a != b}
        self._cuts: set[frozenset[str]] = set()
        self._transports: dict[str, SimTransport] = {}

    # -- nodes come and go ---------------------------------------------------------

    def attach(self, transport: SimTransport) -> None:
        """A node's process is up; links to those that can be reached come up."""
        others = [other for other in self.node_ids if other != transport.node_id]
        for other in others:
            # A link that has not ended yet belongs to an earlier process.
            self._disconnect(transport.node_id, other, refused=True)
        self._transports[transport.node_id] = transport
        for other in others:
            self._connect(transport.node_id, other)

    def detach(self, node_id: str) -> None:
        """A node's process is gone: its peers notice.

        Either at once (a reset, which loses what was under way), or after what
        it had sent (an end of stream).
        """
        del self._transports[node_id]
        for other in self.node_ids:
            if other == node_id or not self._links[node_id, other].up:
                continue
            link = self._links[node_id, other]
            if self._rng.random() < 0.5:
                self._disconnect(node_id, other, refused=True)
            else:
                self.world.at(link.last_arrival, self._end_of_stream(node_id, other, link.epoch))

    def _end_of_stream(self, a: str, b: str, epoch: int) -> Callable[[], None]:
        def end() -> None:
            if self._links[a, b].epoch == epoch:
                self._disconnect(a, b, refused=True)

        return end

    # -- faults -----------------------------------------------------------------------

    def cut(self, a: str, b: str, *, notice_after: float | None = 0.5) -> None:
        """Nothing passes between two nodes; they notice the silence after ``notice_after`` s, or never."""
        pair = frozenset((a, b))
        if pair in self._cuts:
            return
        self._cuts.add(pair)
        for one, two in ((a, b), (b, a)):
            self._links[one, two].silent = True
        epoch = self._links[a, b].epoch

        def notice() -> None:
            if pair in self._cuts and self._links[a, b].epoch == epoch:
                self._disconnect(a, b, refused=False)

        if notice_after is not None:
            self.world.at(self.world.now + notice_after, notice)

    def block(self, sender: str, receiver: str) -> None:
        """Nothing passes in this one direction; neither side is told."""
        self._links[sender, receiver].blocked = True

    def unblock(self, sender: str, receiver: str) -> None:
        self._links[sender, receiver].blocked = False

    def slow_down(self, a: str, b: str, latency: tuple[float, float] | None) -> None:
        """Both directions between two nodes take this long, seconds; None: as all others."""
        self._links[a, b].latency = self._links[b, a].latency = latency

    def haunt(self, sender: str, receiver: str, frames: int, rng: random.Random) -> int:
        """Deliver again some of the frames of this link, in order, whatever has happened to it since.

        The real transport fences a connection that was replaced; the engine must not
        depend on it. Returns how many.
        """
        kept = [carried for _, carried in self._links[sender, receiver].kept]
        first = rng.randrange(len(kept)) if kept else 0
        return self._deliver_again(sender, receiver, kept[first : first + frames])

    def echo(self, sender: str, receiver: str, kind: str, frames: int) -> int:
        """As ``haunt``, the latest frames of one kind. Returns how many."""
        kept = [carried for known, carried in self._links[sender, receiver].kept if known == kind]
        return self._deliver_again(sender, receiver, kept[-frames:])

    def _deliver_again(self, sender: str, receiver: str, frames: Sequence[_Carried]) -> int:
        link = self._links[sender, receiver]
        # The first frame of a link says whose it is; the handshake sees to that one.
        if not link.up or not link.heard or receiver not in self._transports:
            return 0
        for carried in frames:
            self._transports[receiver].push(carried.message(sender))
        return len(frames)

    def passes(self, sender: str, receiver: str) -> bool:
        """Whether frames get through in this direction."""
        link = self._links[sender, receiver]
        return link.up and not link.silent and not link.blocked

    def connection(self, sender: str, receiver: str) -> int:
        """Which of the connections that these two have had is the present one."""
        return self._links[sender, receiver].epoch

    @property
    def troubled(self) -> bool:
        """Frames are lost, late or doubled at random somewhere, or wait behind one that is still late."""
        soon = self.world.now + self.latency[1]
        return bool(self.loss or self.duplicate or self.bandwidth) or any(
            link.latency is not None or link.last_arrival > soon for link in self._links.values()
        )

    def heal(self, a: str, b: str) -> None:
        """The cut is over: a link that was noticed dead is made anew, another goes on (with a gap)."""
        self._cuts.discard(frozenset((a, b)))
        for one, two in ((a, b), (b, a)):
            self._links[one, two].silent = False
            self._links[one, two].blocked = False
        self._connect(a, b)

    def reconnect(self, a: str, b: str, *, refused: bool = False) -> None:
        """The link breaks (frames in flight are lost) and comes up again at once."""
        self._disconnect(a, b, refused=refused)
        self.world.at(self.world.now + 0.002, lambda: self._connect(a, b))

    def partition(self, *sides: Sequence[str], notice_after: float | None = 0.5) -> None:
        """Cut every link between nodes of different sides; heal those within one."""
        side_of = {node: at for at, side in enumerate(sides) for node in side}
        for at, a in enumerate(self.node_ids):
            for b in self.node_ids[at + 1 :]:
                if side_of.get(a) != side_of.get(b):
                    self.cut(a, b, notice_after=notice_after)
                else:
                    self.heal(a, b)

    def heal_all(self) -> None:
        for at, a in enumerate(self.node_ids):
            for b in self.node_ids[at + 1 :]:
                self.heal(a, b)

    # -- links ----------------------------------------------------------------------------

    def _connect(self, a: str, b: str) -> None:
        if frozenset((a, b)) in self._cuts or self._links[a, b].up:
            return
        if a not in self._transports or b not in self._transports:
            return
        for one, two in ((a, b), (b, a)):
            link = self._links[one, two]
            link.up = True
            link.silent = False
            link.epoch += 1
            link.last_arrival = 0.0
            link.heard = False
            self._transports[two].push(PeerConnected(one, f"{one}.client:1"))

    def _disconnect(self, a: str, b: str, *, refused: bool) -> None:
        for one, two in ((a, b), (b, a)):
            link = self._links[one, two]
            if link.up:
                link.up = False
                link.epoch += 1
                if two in self._transports:
                    self._transports[two].push(PeerDisconnected(one, refused))

    def send(
        self,
        sender: str,
        receiver: str,
        frame: peer_pb2.PeerFrame,
        when: float,
        commands: Sequence[bytes] = (),
    ) -> bool:
        """Put a frame on its way; ``commands``: of its append's entries, which lack theirs."""
        link = self._links.get((sender, receiver))
        if link is None or not link.up:
            return False
        passed: peer_pb2.PeerFrame | None = frame
        for tap in self.taps:
            if passed is None:
                return True
            passed = tap(sender, receiver, passed)
        if passed is None or link.silent or link.blocked:
            return True
        rng = self._rng
        if self.loss and rng.random() < self.loss:
            return True
        carried = _Carried.of(passed, commands)
        size = len(carried.data)
        self.frames_sent += 1
        self.bytes_sent += size
        if self.keep_frames and (kind := passed.WhichOneof("body")) in _GHOSTLY:
            link.kept.append((kind, carried))
        low, high = link.latency or self.latency
        start = max(when, link.last_arrival - high) if self.bandwidth else when
        arrival = start + low + (high - low) * rng.random()
        if self.bandwidth:
            arrival += size / self.bandwidth
        arrival = max(arrival, link.last_arrival)
        link.last_arrival = arrival
        epoch = link.epoch

        def arrive() -> None:
            if link.epoch == epoch and not link.silent and receiver in self._transports:
                link.heard = True
                self._transports[receiver].push(carried.message(sender))

        lane = link.lane
        self.world.at(arrival, arrive, lane)
        if self.bandwidth:
            self._trickle(link, sender, receiver, arrival - size / self.bandwidth, arrival)
        if self.duplicate and passed.WhichOneof("body") in _GHOSTLY and rng.random() < self.duplicate:
            self.world.at(arrival + high * rng.random(), arrive, lane)
        return True

    def _trickle(self, link: _Link, sender: str, receiver: str, begin: float, end: float) -> None:
        """A frame that takes long arrives bit by bit, which the receiver notices."""
        epoch = link.epoch

        def bits() -> None:
            if link.epoch == epoch and not link.silent and receiver in self._transports:
                link.heard = True
                self._transports[receiver].push(PeerActive(sender))

        moment = max(begin, self.world.now) + _TRICKLE_SECONDS
        while moment < end:
            self.world.at(moment, bits)
            moment += _TRICKLE_SECONDS


@dataclass
class SimTransport:
    """The transport port of one node's process."""

    node_id: str
    network: SimNetwork
    clock: NodeClock
    inbox: list[TransportEvent] = field(default_factory=list)
    closed: bool = False

    def start(self) -> None:
        self.network.attach(self)

    def push(self, event: TransportEvent) -> None:
        self.inbox.append(event)

    def poll(self, timeout: float) -> Sequence[TransportEvent]:
        events, self.inbox = self.inbox, []
        return events

    def send(self, node_id: str, frame: peer_pb2.PeerFrame) -> bool:
        return self.send_append(node_id, frame, ())

    def send_append(self, node_id: str, frame: peer_pb2.PeerFrame, commands: Sequence[bytes]) -> bool:
        if self.closed:
            return False
        when = self.network.world.now + self.clock.lag
        return self.network.send(self.node_id, node_id, frame, when, commands)

    def backlog(self, node_id: str) -> int:
        return 0

    def wake(self) -> None:
        return

    def close(self) -> None:
        self.closed = True
