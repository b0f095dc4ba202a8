"""A long log beside a short one: throughput, and restarts."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import AsyncExitStack
from pathlib import Path

from benchmarks.compare.payloads import pool
from benchmarks.growth.brokers import Restart, even, restart_follower, running
from benchmarks.growth.bursts import Burst, Load
from benchmarks.growth.findings import Finding, no_longer_than, share
from benchmarks.growth.scale import Scale
from holdfast.chaos.processes import LocalCluster

_RECORD = 1024
_PARTITIONS = 3
_TOPIC = "log"
_STEP = 500e6
_LEAST = 0.95
#: Seconds that a restart with the long log may take longer.
_MORE = 0.5

Tell = Callable[[str], None]


class _Grown:
    """A cluster with a log; close ``stack`` to be rid of it."""

    def __init__(self, stack: AsyncExitStack, cluster: LocalCluster, load: Load) -> None:
        self.stack = stack
        self.cluster = cluster
        self.load = load

    @property
    def gigabytes(self) -> str:
        return f"{self.load.payload_bytes / 1e9:.1f} GB"


async def _grow(directory: Path, payload_bytes: float, tell: Tell) -> _Grown:
    """Start and publish so much. Raises RuntimeError when a broker does not hold what it should."""
    async with AsyncExitStack() as stack:
        cluster, bus = await stack.enter_async_context(running(directory))
        load = Load(bus, _TOPIC, _PARTITIONS, pool(_RECORD))
        await load.create()
        while (missing := payload_bytes - load.payload_bytes) >= load.call_bytes / 2:
            burst = await load.burst(load.calls(min(missing, _STEP)))
            tell(f"{directory.name}: {load.payload_bytes / 1e9:.2f} GB, {burst.megabytes:.0f} MB/s")
        await even(cluster)
        for node_id in cluster.brokers:
            held = cluster.status(node_id).data_bytes
            if held < load.payload_bytes:
                raise RuntimeError(f"{node_id} holds {held} bytes of {load.payload_bytes} published")
        return _Grown(stack.pop_all(), cluster, load)
    raise AssertionError("the stack swallows nothing")


class _Pair:
    """The clusters, from ``grow`` until the stack is closed."""

    def __init__(self, directory: Path, scale: Scale, tell: Tell) -> None:
        self._directory = directory
        self._scale = scale
        self._tell = tell
        self._smalls = 0
        self.large: _Grown
        self.small: _Grown

    async def grow(self) -> None:
        self.small = await _grow(self._directory / "small-0", self._scale.small, self._tell)
        self.large = await _grow(self._directory / "large", self._scale.large, self._tell)

    async def close(self) -> None:
        try:
            if hasattr(self, "large"):
                await self.large.stack.aclose()
        finally:
            if hasattr(self, "small"):
                await self.small.stack.aclose()

    async def keep_small(self, coming: float) -> None:
        """A new one, unless the bytes to come leave it small."""
        if self.small.load.payload_bytes + coming <= 2 * self._scale.small:
            return
        await self.small.stack.aclose()
        self._smalls += 1
        self.small = await _grow(self._directory / f"small-{self._smalls}", self._scale.small, self._tell)

    async def burst(self, of: _Grown) -> Burst:
        for each in (self.large, self.small):
            await even(each.cluster)
        return await of.load.burst(of.load.calls(self._scale.burst))


async def findings(directory: Path, scale: Scale, only: Collection[str], tell: Tell) -> list[Finding]:
    """Rows of the sections ``log`` and ``restart``, those that are in ``only``.

    Raises RuntimeError, HoldfastError.
    """
    pair = _Pair(directory, scale, tell)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(pair.close)
        await pair.grow()
        found = []
        if "log" in only:
            found.append(await _throughput(pair, scale, tell))
        if "restart" in only:
            found.append(await _restarts(pair, scale, tell))
        return found
    raise AssertionError("the stack swallows nothing")


async def _throughput(pair: _Pair, scale: Scale, tell: Tell) -> Finding:
    large: list[float] = []
    small: list[float] = []
    at = pair.large.gigabytes
    for number in range(-1, scale.pairs):  # the first pair is not counted
        await pair.keep_small(scale.burst)
        sides = [(pair.large, large), (pair.small, small)]
        for grown, speeds in sides if number % 2 else reversed(sides):
            burst = await pair.burst(grown)
            speeds.append(burst.megabytes)
            tell(f"log: burst at {grown.gigabytes}: {burst.megabytes:.0f} MB/s")
    short = f"{scale.small / 1e6:.0f} to {scale.small / 5e5:.0f} MB"
    what = f"throughput at {at} of log, of that at {short}"
    return share(what, _LEAST, large[1:], small[1:], "MB/s")


async def _restarts(pair: _Pair, scale: Scale, tell: Tell) -> Finding:
    large: list[Restart] = []
    small: list[Restart] = []
    for number in range(scale.restarts):
        sides = [(pair.large, large), (pair.small, small)]
        for grown, seconds in sides if number % 2 else reversed(sides):
            took = await restart_follower(grown.cluster, number % 2)
            seconds.append(took)
            tell(f"restart: {grown.gigabytes}: {took.answer:.2f} s, all applied {took.applied:.2f} s")
    what = f"restart with {pair.large.gigabytes} of log, beside one of {pair.small.gigabytes}"
    found = no_longer_than(what, _MORE, [one.answer for one in large], [one.answer for one in small])
    found.figures["applied"] = {
        "ours": [one.applied for one in large],
        "base": [one.applied for one in small],
    }
    return found
