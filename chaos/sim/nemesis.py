"""Carries out a plan's faults, and undoes them."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Protocol

import google_crc32c

from holdfast.chaos.sim.cluster import SimCluster, SimNode
from holdfast.chaos.sim.disk import EMPTY_DISK
from holdfast.chaos.sim.plan import KINDS, Fault, Plan
from holdfast.storage.port import Table
from holdfast.v1 import peer_pb2

#: Rows that rot: everything a node keeps.
_ROTTING = tuple(Table)
#: Seconds between two writes of the nemesis: each has an entry of its own.
_WRITE_EVERY = 0.004
#: What is sent now is there after so many seconds, and nothing that answers it.
_ARRIVES = 0.0015
#: Frames that "echo" delivers again at a time.
_ECHOED = 20


class Clients(Protocol):
    """What the nemesis does to clients."""

    def cut(self, node_id: str, *, silent: bool) -> None:
        """Clients do not reach the node: their calls fail at once, or hang."""
        ...

    def pause(self, node_id: str) -> None:
        """The node's services stand still with it."""
        ...

    def resume(self, node_id: str) -> None: ...

    def heal(self, node_id: str) -> None: ...

    def heal_all(self) -> None: ...

    def write(self, node: SimNode) -> None:
        """Ask a node for one small write."""
        ...

    def hush(self, quiet: bool) -> None:
        """Nobody asks for anything, until told otherwise."""
        ...


class Nemesis:
    """Schedules the faults of one plan.

    Args:
        note: told what is done, for the timeline.
        disturbed: told when something has just changed, by a fault or by its end.
    """

    def __init__(
        self,
        cluster: SimCluster,
        plan: Plan,
        clients: Clients,
        note: Callable[[str, str], None],
        disturbed: Callable[[], None],
    ) -> None:
        self._cluster = cluster
        self._plan = plan
        self._clients = clients
        self._note = note
        self._disturbed = disturbed
        self._rng: random.Random = cluster.world.stream("nemesis")
        self._over = False
        #: The one node whose rows may rot: what is promised is to survive one lost copy of a
        #: row, not two of the same.
        self.rotten: str | None = None
        #: Nodes that may rightly halt: their disk failed, or they were fed what is damaged.
        self.excused: set[str] = set()
        self._tainting = ""
        #: Faults of kind "echo" under way, and the terms of which appends have been seen since.
        self._echoing = 0
        self._echoed: dict[tuple[str, str], int] = {}
        self._restarts: dict[str, int] = {}
        cluster.network.taps.append(self._taint)
        cluster.network.taps.append(self._repeat)

    def schedule(self) -> None:
        world = self._cluster.world
        start = world.now
        for fault in self._plan.faults:
            world.at(start + fault.at, lambda fault=fault: self._begin(fault))  # type: ignore[misc]

    def calm(self) -> None:
        """Undo everything: what comes after is a healthy cluster."""
        self._over = True
        cluster = self._cluster
        network = cluster.network
        network.loss = network.duplicate = 0.0
        network.latency = (0.0002, 0.0008)
        network.heal_all()
        for a in cluster.ids:
            for b in cluster.ids:
                if a < b:
                    network.slow_down(a, b, None)
        self._tainting = ""
        self._echoing = 0
        self._clients.heal_all()
        self._clients.hush(False)
        for node in cluster.nodes.values():
            node.store.power = "on"
            node.store.failing = False
            node.store.fsync = (0.0002, 0.0006)
            node.store.disk_free = EMPTY_DISK
            node.clock.run_at(1.0)
            cluster.resume(node.node_id)
            self._clients.resume(node.node_id)
            cluster.start(node.node_id)
        self._note("calm", "everything healed and started")

    def operate(self, node: SimNode) -> None:
        """What an operator does about a node that is down though all is calm.

        A restart; and when that does not help because the disk is damaged, a new disk.
        """
        self._restarts[node.node_id] = restarts = self._restarts.get(node.node_id, 0) + 1
        if restarts > 2 and node.node_id in self.excused and not self._joining():
            self.replace_disk(node)
        self._cluster.start(node.node_id)

    def replace_disk(self, node: SimNode) -> None:
        """What the broker's log asks an operator for when a row is damaged that no replica can give."""
        self._note("operator", f"{node.node_id} gets a new disk")
        self._cluster.wipe(node.node_id)
        self._cluster.start(node.node_id)

    # -- one fault --------------------------------------------------------------------

    def _begin(self, fault: Fault) -> None:
        if self._over:
            return
        node = self._target(fault)
        undo = _FAULTS[fault.kind](self, fault, node)
        if undo is None:
            return
        self._note(fault.kind, f"{node.node_id} {_what(fault)}")
        self._cluster.world.at(self._cluster.world.now + fault.span, lambda: self._end(fault, node, undo))

    def _end(self, fault: Fault, node: SimNode, undo: Callable[[], None]) -> None:
        if not self._over:
            undo()
            self._disturbed()
            self._note(fault.kind, f"{node.node_id} over")

    def _target(self, fault: Fault) -> SimNode:
        leader = self._cluster.leader() if fault.target == "leader" else None
        if leader is not None:
            return leader
        return self._cluster.nodes[fault.other if fault.target == "leader" else fault.target]

    def _other(self, fault: Fault, node: SimNode) -> SimNode:
        cluster = self._cluster
        if fault.other != node.node_id:
            return cluster.nodes[fault.other]
        at = cluster.ids.index(node.node_id)
        return cluster.nodes[cluster.ids[(at + 1) % len(cluster.ids)]]

    # -- processes and power ------------------------------------------------------------

    def _crash(self, fault: Fault, node: SimNode) -> Callable[[], None] | None:
        self._cluster.crash(node.node_id)
        return lambda: self._restart(node)

    def _crash_all(self, fault: Fault, node: SimNode) -> Callable[[], None] | None:
        for each in self._cluster.ids:
            self._cluster.crash(each)
        return self._restart_all

    def _power(self, fault: Fault, node: SimNode) -> Callable[[], None] | None:
        node.store.power = "cut_before" if fault.amount < 0.7 else "cut_after"
        return lambda: self._restart(node)

    def _power_all(self, fault: Fault, node: SimNode) -> Callable[[], None] | None:
        cluster = self._cluster
        if fault.amount < 0.5:
            # At one moment.
            for node_id in cluster.ids:
                cluster.crash(node_id)
        else:
            # Each in the middle of what it writes next.
            for each in cluster.nodes.values():
                each.store.power = "cut_before" if self._rng.random() < 0.7 else "cut_after"
        return self._restart_all

    def _restart(self, node: SimNode) -> None:
        node.store.power = "on"
        self._cluster.restart(node.node_id)

    def _restart_all(self) -> None:
        for node in self._cluster.nodes.values():
            self._restart(node)

    def _pause(self, fault: Fault, node: SimNode) -> Callable[[], None] | None:
        if not node.up:
            return None
        self._cluster.pause(node.node_id)
        self._clients.pause(node.node_id)

        def undo() -> None:
            self._cluster.resume(node.node_id)
            self._clients.resume(node.node_id)

        return undo

    def _transfer(self, fault: Fault, node: SimNode) -> Callable[[], None] | None:
        if node.engine is None or node.paused or node.engine.core.transfer_leadership() is None:
            return None
        return _nothing

    # -- network ----------------------------------------------------------------------------

    def _isolate(self, fault: Fault, node: SimNode) -> Callable[[], None] | None:
        others = [each for each in self._cluster.ids if each != node.node_id]
        self._cluster.network.partition([node.node_id], others, notice_after=_notice(fault))
        return self._cluster.network.heal_all

    def _split(self, fault: Fault, node: SimNode) -> Callable[[], None] | None:
        ids = list(self._cluster.ids)
        self._rng.shuffle(ids)
        half = len(ids) // 2
        self._cluster.network.partition(ids[:half], ids[half:], notice_after=_notice(fault))
        return self._cluster.network.heal_all

    def _cut(self, fault: Fault, node: SimNode) -> Callable[[], None] | None:
        other = self._other(fault, node).node_id
        self._cluster.network.cut(node.node_id, other, notice_after=_notice(fault))
        return lambda: self._cluster.network.heal(node.node_id, other)

    def _one_way(self, fault: Fault, node: SimNode) -> Callable[[], None] | None:
        network, own = self._cluster.network, node.node_id
        others = [each for each in self._cluster.ids if each != own]
        if fault.amount < 0.4:
            others = [self._other(fault, node).node_id]
        pairs = [(own, each) if fault.amount < 0.7 else (each, own) for each in others]
        for pair in pairs:
            network.block(*pair)

        def undo() -> None:
            for pair in pairs:
                network.unblock(*pair)

        return undo

    def _reconnect(self, fault: Fault, node: SimNode) -> Callable[[], None] | None:
        self._cluster.network.reconnect(
            node.node_id, self._other(fault, node).node_id, refused=fault.amount < 0.5
        )
        return _nothing

    def _loss(self, fault: Fault, node: SimNode) -> Callable[[], None] | None:
        self._cluster.network.loss = 0.3 * fault.amount
        return self._no_loss

    def _no_loss(self) -> None:
        self._cluster.network.loss = 0.0

    def _slow_net(self, fault: Fault, node: SimNode) -> Callable[[], None] | None:
        network, own = self._cluster.network, node.node_id
        slowest = (0.02, 0.1, 0.5, 1.5)[int(fault.amount * 4) % 4]
        others = [each for each in self._cluster.ids if each != own]
        for each in others:
            network.slow_down(own, each, (slowest / 10, slowest))

        def undo() -> None:
            for each in others:
                network.slow_down(own, each, None)

        return undo

    def _duplicate(self, fault: Fault, node: SimNode) -> Callable[[], None] | None:
        self._cluster.network.duplicate = 0.2 + 0.8 * fault.amount
        return self._no_duplicates

    def _no_duplicates(self) -> None:
        self._cluster.network.duplicate = 0.0

    def _ghosts(self, fault: Fault, node: SimNode) -> Callable[[], None] | None:
        """Old frames of one link come again, at once and some times later."""
        network, world = self._cluster.network, self._cluster.world
        other = self._other(fault, node).node_id
        # Answers to the node that leads are the ones that may be counted twice.
        sender, receiver = (node.node_id, other) if fault.amount < 0.3 else (other, node.node_id)
        if fault.amount * 10 % 1 < 0.3:
            network.reconnect(sender, receiver)
        for part in range(4):
            count = 1 + self._rng.randrange(60)
            world.at(
                world.now + 0.005 + fault.span * part / 3,
                lambda count=count: network.haunt(sender, receiver, count, self._rng),  # type: ignore[misc]
            )
        return _nothing

    def _echo(self, fault: Fault, node: SimNode) -> Callable[[], None] | None:
        """Elections in which half of the requests get lost, and whoever asks hears old answers too."""
        self._echoing += 1

        def undo() -> None:
            self._echoing -= 1
            self._echoed.clear()

        return undo

    def _repeat(self, sender: str, receiver: str, frame: peer_pb2.PeerFrame) -> peer_pb2.PeerFrame | None:
        if not self._echoing:
            return frame
        kind = frame.WhichOneof("body")
        if kind == "vote_request" and not frame.vote_request.pre_vote:
            self._again(receiver, sender, "vote_reply")
            if self._rng.random() < 0.5:
                return None
        elif kind == "vote_reply" and frame.vote_reply.granted and not frame.vote_reply.pre_vote:
            self._again(sender, receiver, "vote_reply")
        elif kind == "append" and self._echoed.get((sender, receiver), 0) < frame.term:
            self._echoed[sender, receiver] = frame.term
            self._again(receiver, sender, "append_reply")
        return frame

    def _again(self, sender: str, receiver: str, kind: str) -> None:
        """The latest frames of a kind arrive once more: now, and after what is under way."""
        network, world = self._cluster.network, self._cluster.world
        for delay in (0.0, 0.002):
            world.at(world.now + delay, lambda: network.echo(sender, receiver, kind, _ECHOED))

    def _outrun(self, fault: Fault, node: SimNode) -> Callable[[], None] | None:
        """A leader is cut off, the others go on without it, and it comes back before it has given up.

        Of its last entries some have reached the others and were never confirmed to it;
        the very last ones nobody else has. The others take a few more, or more than a
        log is kept for.
        """
        cluster, network, own = self._cluster, self._cluster.network, node.node_id
        others = [each for each in cluster.ids if each != own]
        if not others or node is not cluster.leader():
            return None
        for each in others:
            network.block(each, own)
        self._writes(5, lambda: node)
        self._later(0.03, lambda: network.partition([own], others, notice_after=None))
        self._later(0.035, lambda: self._writes(3, lambda: node))
        self._later(0.1, lambda: self._go_on_without(node, 8 if fault.amount < 0.5 else 40))
        return network.heal_all

    def _go_on_without(self, node: SimNode, writes: int) -> None:
        """Let others write as soon as one of them leads, and then heal the network."""
        leader = next(
            (
                each
                for each in self._cluster.nodes.values()
                if each is not node and each.engine is not None and each.engine.core.ready_to_read
            ),
            None,
        )
        if leader is None:
            self._later(0.02, lambda: self._go_on_without(node, writes))
            return

        def heal() -> None:
            self._cluster.network.heal_all()
            self._disturbed()

        self._writes(writes, lambda: leader)
        self._later(_WRITE_EVERY * (writes + 1), heal)

    def _lost_handover(self, fault: Fault, node: SimNode) -> Callable[[], None] | None:
        """The leader hands over, and the link to its successor falls silent before it hears of it."""
        if node.engine is None or node.paused:
            return None
        network, own = self._cluster.network, node.node_id
        successor = node.engine.core.transfer_leadership()
        if successor is None:
            return None
        self._later(_ARRIVES, lambda: network.cut(own, successor, notice_after=None))
        return lambda: network.heal(own, successor)

    def _lull(self, fault: Fault, node: SimNode) -> Callable[[], None] | None:
        """Nobody asks for anything; then a follower, whose log is as good as any, hears no leader."""
        network = self._cluster.network
        if len(self._cluster.ids) == 1:
            return None
        self._clients.hush(True)
        cut: list[tuple[str, str]] = []

        def separate() -> None:
            leader = self._cluster.leader()
            if leader is not None:
                cut.append((leader.node_id, self._other(fault, leader).node_id))
                network.cut(*cut[0], notice_after=None)

        self._later(self._cluster.settings.election_max, separate)

        def undo() -> None:
            self._clients.hush(False)
            for pair in cut:
                network.heal(*pair)

        return undo

    def _later(self, delay: float, action: Callable[[], None]) -> None:
        """A later step of a fault, unless all is calm by then."""
        world = self._cluster.world
        world.at(world.now + delay, lambda: None if self._over else action())

    def _writes(self, count: int, target: Callable[[], SimNode | None]) -> None:
        """So many small entries, one after the other."""

        def write() -> None:
            node = target()
            if node is not None and node.engine is not None and not node.paused:
                self._clients.write(node)

        for number in range(count):
            self._later(_WRITE_EVERY * number, write)

    def _client_cut(self, fault: Fault, node: SimNode) -> Callable[[], None] | None:
        self._clients.cut(node.node_id, silent=fault.amount < 0.5)
        return lambda: self._clients.heal(node.node_id)

    def _foreign(self, fault: Fault, node: SimNode) -> Callable[[], None] | None:
        self._tainting = "foreign"
        return self._untaint

    def _bad_snapshot(self, fault: Fault, node: SimNode) -> Callable[[], None] | None:
        self._tainting = "bad_snapshot"
        # Something to need a snapshot for.
        node.store.power = "cut_before"
        self._cluster.crash(node.node_id)
        self._later(fault.span / 2, lambda: self._writes(40, self._cluster.leader))

        def undo() -> None:
            self._restart(node)
            self._cluster.world.at(self._cluster.world.now + 1.0, self._untaint)

        return undo

    def _untaint(self) -> None:
        self._tainting = ""

    def _taint(self, sender: str, receiver: str, frame: peer_pb2.PeerFrame) -> peer_pb2.PeerFrame | None:
        """Frames as a broken or newer peer would send them."""
        if not self._tainting:
            return frame
        kind = frame.WhichOneof("body")
        if self._tainting == "foreign" and kind == "append" and frame.append.entries:
            if self._rng.random() < 0.3:
                spoiled = peer_pb2.PeerFrame.FromString(frame.SerializeToString())
                spoiled.append.entries[-1].kind = 2 + self._rng.randrange(5)
                return spoiled
        elif (
            self._tainting == "bad_snapshot"
            and kind == "snapshot_chunk"
            and len(frame.snapshot_chunk.data) > 8
        ):
            # Read wrongly, checksummed as read.
            spoiled = peer_pb2.PeerFrame.FromString(frame.SerializeToString())
            spoiled.snapshot_chunk.data = _flipped(frame.snapshot_chunk.data, self._rng)
            spoiled.snapshot_chunk.crc32c = google_crc32c.value(spoiled.snapshot_chunk.data)
            self.excused.add(receiver)
            return spoiled
        return frame

    # -- disks -----------------------------------------------------------------------------

    def _slow_disk(self, fault: Fault, node: SimNode) -> Callable[[], None] | None:
        slowest = (0.01, 0.05, 0.3, 1.5)[int(fault.amount * 4) % 4]
        node.store.fsync = (slowest / 4, slowest)

        def undo() -> None:
            node.store.fsync = (0.0002, 0.0006)

        return undo

    def _failed_fsync(self, fault: Fault, node: SimNode) -> Callable[[], None] | None:
        node.store.failing = True
        self.excused.add(node.node_id)

        def undo() -> None:
            node.store.failing = False
            self._cluster.start(node.node_id)

        return undo

    def _full_disk(self, fault: Fault, node: SimNode) -> Callable[[], None] | None:
        struck = [node]
        if fault.amount > 0.7:
            struck = list(self._cluster.nodes.values())
        for each in struck:
            each.store.disk_free = int(fault.amount * 300 * 1024 * 1024)

        def undo() -> None:
            for each in struck:
                each.store.disk_free = EMPTY_DISK

        return undo

    def _rot(self, fault: Fault, node: SimNode) -> Callable[[], None] | None:
        return self._spoil(node, lambda table, key: node.store.damage(table, key, int(fault.amount * 1e6)))

    def _torn(self, fault: Fault, node: SimNode) -> Callable[[], None] | None:
        return self._spoil(node, lambda table, key: node.store.tear(table, key, int(fault.amount * 1e6)))

    def _spoil(self, node: SimNode, spoil: Callable[[Table, bytes], bool]) -> Callable[[], None] | None:
        if self.rotten not in (None, node.node_id) or self._joining():
            return None
        tables = [table for table in _ROTTING if node.store.keys(table)]
        if not tables:
            return None
        # Payload is most of what a disk holds.
        table = Table.JOURNAL if self._rng.random() < 0.6 else self._rng.choice(tables)
        keys = node.store.keys(table)
        if not keys:
            return None
        key = keys[-1 - min(int(self._rng.expovariate(0.1)), len(keys) - 1)]
        if not spoil(table, key):
            return None
        self.rotten = node.node_id
        self.excused.add(node.node_id)
        self._note("rot", f"{node.node_id} {table.name} {key.hex()}")
        return _nothing

    def _wipe(self, fault: Fault, node: SimNode) -> Callable[[], None] | None:
        if self.rotten not in (None, node.node_id) or self._joining():
            return None
        self._cluster.wipe(node.node_id)
        return lambda: self._restart(node)

    def _joining(self) -> bool:
        """A node has an empty disk and is not caught up: what it held has one copy less."""
        return any(node.wiped for node in self._cluster.nodes.values())

    # -- clocks --------------------------------------------------------------------------------

    def _clock_jump(self, fault: Fault, node: SimNode) -> Callable[[], None] | None:
        sizes = (0.3, 10.0, 3600.0, 86400.0)
        jump = sizes[int(fault.amount * 40) % 4] * (1 if fault.amount < 0.5 else -1)
        node.clock.wall_skew_us += int(jump * 1_000_000)

        def undo() -> None:
            node.clock.wall_skew_us -= int(jump * 1_000_000)

        return undo

    def _drift(self, fault: Fault, node: SimNode) -> Callable[[], None] | None:
        node.clock.run_at(0.9 + 0.2 * fault.amount)
        node.touched = True

        def undo() -> None:
            node.clock.run_at(1.0)
            node.touched = True

        return undo


#: What begins a fault; gives what ends it, or None when it could not begin.
_Begin = Callable[[Nemesis, Fault, SimNode], Callable[[], None] | None]
_FAULTS: dict[str, _Begin] = {kind: getattr(Nemesis, f"_{kind}") for kind in KINDS}


def _nothing() -> None:
    """There is nothing to undo."""


def _flipped(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(8 * len(data))
    spoiled = bytearray(data)
    spoiled[at // 8] ^= 1 << (at % 8)
    return bytes(spoiled)


def _notice(fault: Fault) -> float | None:
    """When the two ends notice a cut: never, soon, or after a while."""
    return (None, 0.05, 0.5)[int(fault.amount * 30) % 3]


def _what(fault: Fault) -> str:
    return f"other={fault.other} span={fault.span:.3f} amount={fault.amount:.2f}"
