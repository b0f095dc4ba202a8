"""How PySyncObj is handed our clock, randomness, journal and poller.

PySyncObj takes these from names of its module. Replacing names in the module
would change every engine (and every stock object) in the process, so each
engine instead gets its own copy of those functions that use such a name, with
a globals mapping of its own. Nothing global is ever patched: engines with
different clocks live side by side, and stock objects stay stock.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from types import FunctionType, MethodType
from typing import Any

from pysyncobj.config import SERIALIZER_STATE, SyncObjConf
from pysyncobj.node import Node
from pysyncobj.syncobj import SyncObj
from pysyncobj.transport import Transport

from holdfast.cluster.raft.settings import EngineSettings


def bind(function: FunctionType, instance: object, names: Mapping[str, object]) -> Callable[..., Any]:
    """``function`` as a method of ``instance`` that sees ``names`` as its globals."""
    # A code object of its own: the interpreter caches global lookups in it.
    code = function.__code__.replace()
    private = FunctionType(
        code,
        {**function.__globals__, **names},
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    return MethodType(private, instance)


def rebind(instance: SyncObj, names: Mapping[str, object]) -> dict[str, Callable[..., Any]]:
    """Bind every stock function that uses one of ``names``.

    Those the instance's class overrides are only returned, so that an override
    can call the stock one; the others are set on the instance.
    """
    bound: dict[str, Callable[..., Any]] = {}
    ours = type(instance).__mro__[: type(instance).__mro__.index(SyncObj)]
    for name, value in vars(SyncObj).items():
        if isinstance(value, FunctionType) and not names.keys().isdisjoint(value.__code__.co_names):
            method = bind(value, instance, names)
            bound[name] = method
            if not any(name in vars(cls) for cls in ours):
                instance.__dict__[name] = method
    return bound


class PeerNode(Node):  # type: ignore[misc]  # pysyncobj has no types
    """A voter, by id. Its hash is stable, so that the order of sets is, too."""

    def __init__(self, node_id: str) -> None:
        super().__init__(node_id)
        self._hash = zlib.crc32(node_id.encode())

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Node) and self.id == other.id)


class NullPoller:
    """Sockets are not PySyncObj's business here: frames are handed to it."""

    def poll(self, timeout: float) -> None:
        return


class NullResolver:
    """No DNS in the engine (24)."""

    def setTimeouts(self, cache_time: float, fail_cache_time: float) -> None:
        return

    def setPreferredAddrFamily(self, family: object) -> None:
        return


class NullSerializer:
    """PySyncObj never dumps or loads state: snapshots are ours (4, 5, 7, 17, 19)."""

    def __init__(self, *_: object) -> None:
        return

    def checkSerializing(self) -> tuple[int, None]:
        return SERIALIZER_STATE.NOT_SERIALIZING, None

    def getTransmissionData(self, node: object) -> None:
        return None

    def cancelTransmisstion(self, node: object) -> None:
        return


class Outlet(Transport):  # type: ignore[misc]  # pysyncobj has no types
    """Where PySyncObj sends: straight into the core, which translates and holds."""

    def __init__(self, send: Callable[[Node, dict[str, Any]], bool]) -> None:
        super().__init__(None, None, ())
        self._send = send

    def send(self, node: Node, message: dict[str, Any]) -> bool:
        return self._send(node, message)


def configuration(settings: EngineSettings) -> SyncObjConf:
    """PySyncObj's own settings."""
    return SyncObjConf(
        autoTick=False,
        appendEntriesUseBatch=True,  # 23: no notifier pipe
        dynamicMembershipChange=False,  # 15
        raftMinTimeout=settings.election_min,
        raftMaxTimeout=settings.election_max,
        appendEntriesPeriod=settings.heartbeat,
        leaderFallbackTimeout=settings.leader_fallback,
        connectionTimeout=max(3.5, settings.election_max),
        appendEntriesBatchSizeBytes=1 << 62,  # 16: an entry is never chunked
        commandsWaitLeader=True,
        fullDumpFile=None,
        journalFile=None,
    )
