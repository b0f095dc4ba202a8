"""Asks every broker of a cluster, at the same time, and puts the answers side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Literal

import grpc

from holdfast.errors import UnavailableError, UnknownTopicError
from holdfast.v1 import cluster_pb2, cluster_pb2_grpc

_DIGEST_ROUNDS = 5
_NOT_FOUND = "not found"
_ROLES = {1: "follower", 2: "candidate", 3: "leader"}


@dataclass(slots=True)
class Node:
    """One broker; ``status`` is None when it could not be asked, and ``problem`` says why."""

    node_id: str
    address: str
    status: cluster_pb2.ClusterStatus | None = None
    problem: str = ""
    lag: int | None = None

    @property
    def role(self) -> str:
        """``leader``, ``follower``, ``candidate``, ``joining`` or ``unreachable``."""
        if self.status is not None and self.status.joining:
            return "joining"
        return _ROLES.get(self.status.role, "starting") if self.status is not None else "unreachable"


@dataclass(slots=True)
class StatusView:
    """All brokers, by node id."""

    nodes: list[Node]

    @property
    def leader_id(self) -> str | None:
        """The leader that the brokers of the newest term name."""
        known = [node.status for node in self.nodes if node.status is not None and node.status.leader_id]
        return max(known, key=lambda status: status.term).leader_id if known else None

    def as_dict(self) -> dict[str, Any]:
        return {"leader": self.leader_id, "nodes": [_node_dict(node) for node in self.nodes]}


@dataclass(frozen=True, slots=True)
class Replica:
    """A replica's partition: the log index it was read at, its end, its digest."""

    applied_index: int
    end_offset: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class DigestRow:
    """One partition on each node; ``expected`` is the number of nodes."""

    topic: str
    partition: int
    replicas: dict[str, Replica]
    expected: int

    @property
    def verdict(self) -> Literal["equal", "differ", "busy"]:
        """``busy``: it was written to between the answers, so that they cannot be compared."""
        found = self.replicas.values()
        if len(found) == self.expected and len({(r.end_offset, r.digest) for r in found}) == 1:
            return "equal"
        moved = len({r.applied_index for r in found}) > 1 and (
            len({r.end_offset for r in found}) > 1 or len(found) < self.expected
        )
        return "busy" if moved else "differ"

    @property
    def end_offset(self) -> int:
        return max(replica.end_offset for replica in self.replicas.values())

    def shown(self) -> str:
        """The digest, or each node's when they are not equal."""
        if self.verdict == "equal":
            return next(iter(self.replicas.values())).digest.hex()
        return "  ".join(f"{node}={r.digest.hex()}@{r.end_offset}" for node, r in self.replicas.items())


@dataclass(frozen=True, slots=True)
class DigestView:
    """The replicas that were compared."""

    nodes: list[str]
    rows: list[DigestRow]

    @property
    def verdict(self) -> Literal["equal", "differ", "busy"]:
        """The worst of the rows'."""
        found = {row.verdict for row in self.rows}
        return "differ" if "differ" in found else "busy" if "busy" in found else "equal"

    def as_dict(self) -> dict[str, Any]:
        partitions = [
            {
                "topic": row.topic,
                "partition": row.partition,
                "end_offset": row.end_offset,
                "verdict": row.verdict,
                "digests": {node: replica.digest.hex() for node, replica in row.replicas.items()},
            }
            for row in self.rows
        ]
        return {"verdict": self.verdict, "nodes": self.nodes, "partitions": partitions}


def gather_status(endpoints: list[str], timeout: float) -> StatusView:
    """Ask the brokers at ``endpoints``, and those they name as members, within about ``timeout`` seconds.

    Raises:
        UnavailableError: none of the endpoints answered.
    """
    nodes: dict[str, Node] = {}
    answers = _ask_all(endpoints, _get_status, timeout)
    for address, answer in answers.items():
        if isinstance(answer, cluster_pb2.ClusterStatus):
            nodes[answer.node_id] = Node(answer.node_id, address, answer)
    if not nodes:
        problems = "; ".join(f"{address}: {problem}" for address, problem in answers.items())
        raise UnavailableError(
            f"no broker answers ({problems}); start one with `holdfast serve` or `holdfast up`"
        )
    members = {member.node_id: member for node in list(nodes.values()) for member in _members(node)}
    missing = {m.client_address: m.node_id for m in members.values() if m.node_id not in nodes}
    for address, answer in _ask_all(missing, _get_status, timeout).items():
        node_id = missing[address]
        if isinstance(answer, cluster_pb2.ClusterStatus) and answer.node_id == node_id:
            nodes[node_id] = Node(node_id, address, answer)
        else:
            nodes[node_id] = Node(node_id, address, problem=str(answer))
    view = StatusView([nodes[node_id] for node_id in sorted(nodes)])
    leader = nodes.get(view.leader_id or "")
    if leader is not None and leader.status is not None:
        for member in leader.status.members:
            nodes[member.node_id].lag = 0 if member.node_id == leader.node_id else member.lag_entries
    return view


def gather_digests(endpoints: list[str], topic: str, timeout: float) -> DigestView:
    """The digests of all brokers, once each has applied what any of them has committed.

    A partition that is being written to is asked for again, a few times.

    Raises:
        UnavailableError: a broker of the cluster could not be asked.
        UnknownTopicError: no such topic.
    """
    for _ in range(_DIGEST_ROUNDS):
        view = _compare(endpoints, topic, timeout)
        if view.verdict != "busy":
            break
    return view


def _compare(endpoints: list[str], topic: str, timeout: float) -> DigestView:
    nodes = gather_status(endpoints, timeout).nodes
    index = max(node.status.commit_index for node in nodes if node.status is not None)
    request = cluster_pb2.GetDigestRequest(topic=topic, min_applied_index=index)

    def ask(stub: Any) -> Any:
        return stub.GetDigest.future(request, timeout=timeout)

    answers = _ask_all([node.address for node in nodes if node.status is not None], ask, timeout)
    rows: dict[tuple[str, int], DigestRow] = {}
    for node in nodes:
        answer = answers.get(node.address, node.problem)
        if isinstance(answer, str):
            if topic and answer == _NOT_FOUND:
                raise UnknownTopicError(f"no topic {topic!r}; see `holdfast topic list`")
            raise UnavailableError(f"cannot compare all replicas: no answer from {node.node_id} ({answer})")
        for part in answer.partitions:
            key = (part.topic, part.partition)
            row = rows.setdefault(key, DigestRow(*key, replicas={}, expected=len(nodes)))
            row.replicas[node.node_id] = Replica(answer.applied_index, part.end_offset, part.digest)
    return DigestView([node.node_id for node in nodes], [rows[key] for key in sorted(rows)])


def _get_status(stub: Any) -> Any:
    return stub.GetStatus.future(cluster_pb2.GetStatusRequest())


def _ask_all(addresses: Iterable[str], call: Callable[[Any], Any], timeout: float) -> dict[str, Any]:
    """Each address's answer, or a text that says why there is none."""
    with ExitStack() as stack:
        pending = {}
        for address in addresses:
            channel = stack.enter_context(grpc.insecure_channel(address))
            pending[address] = call(cluster_pb2_grpc.ClusterStub(channel))
        found: dict[str, Any] = {}
        for address, future in pending.items():
            try:
                found[address] = future.result(timeout=timeout)
            except grpc.FutureTimeoutError:
                future.cancel()
                found[address] = f"no answer within {timeout:g} s"
            except grpc.RpcError as error:
                found[address] = _reason(error)
        return found


def _reason(error: Any) -> str:
    if error.code() is grpc.StatusCode.NOT_FOUND:
        return _NOT_FOUND
    details = str(error.details() or "")
    if "onnection refused" in details or "failed to connect" in details:
        return "connection refused"
    if "resolving" in details or "resolution" in details:
        return "its host name is not known here"
    return details.splitlines()[0][:120] if details else str(error.code().name).lower()


def _members(node: Node) -> list[Any]:
    return list(node.status.members) if node.status is not None else []


def _node_dict(node: Node) -> dict[str, Any]:
    found: dict[str, Any] = {"node_id": node.node_id, "address": node.address, "role": node.role}
    status = node.status
    if status is None:
        return found | {"problem": node.problem}
    for name in (
        *("cluster_id", "version", "leader_id", "term", "commit_index", "applied_index", "first_log_index"),
        *("last_log_index", "uptime_seconds", "data_bytes", "quota_bytes", "accepting_writes", "joining"),
    ):
        found[name] = getattr(status, name)
    return found | {"lag_entries": node.lag}
