"""Many partitions beside few."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import holdfast
from benchmarks.compare.payloads import pool
from benchmarks.growth.brokers import even, running
from benchmarks.growth.bursts import Burst, Load
from benchmarks.growth.findings import Finding, share
from benchmarks.growth.scale import Scale
from holdfast.chaos.processes import LocalCluster

_RECORD = 100
_LEAST = 0.9
#: Before it is known how fast it is.
_WARM_CALLS = 3

Tell = Callable[[str], None]


async def findings(directory: Path, scale: Scale, tell: Tell) -> list[Finding]:
    """Two rows. Raises RuntimeError, HoldfastError."""
    values = pool(_RECORD)
    keys = [b"key-%d" % number for number in range(len(values))]
    async with running(directory) as (cluster, bus):
        return [
            await _compare("whole batches in turn", cluster, bus, "batches", values, None, scale, tell),
            await _compare("records spread by key", cluster, bus, "keys", values, keys, scale, tell),
        ]
    raise AssertionError("nothing is swallowed")


async def _compare(
    title: str,
    cluster: LocalCluster,
    bus: holdfast.Client,
    topic: str,
    values: list[bytes],
    keys: Sequence[bytes] | None,
    scale: Scale,
    tell: Tell,
) -> Finding:
    few = Load(bus, f"{topic}-few", scale.few, values, keys)
    many = Load(bus, f"{topic}-many", scale.many, values, keys)
    for load in (few, many):
        await load.create()
    bursts: dict[Load, list[Burst]] = {few: [], many: []}
    # The same calls for both, though one may be slower: what a call costs once must not count differently.
    calls = _WARM_CALLS
    for number in range(-2, scale.pairs):  # the first two pairs are not counted
        for load in (few, many) if number % 2 else (many, few):
            await even(cluster)
            burst = await load.burst(calls)
            bursts[load].append(burst)
            name = scale.few if load is few else scale.many
            together = f"{burst.per_ack:,.0f} acknowledged together"
            tell(f"partitions: {title}, {name}: {burst.rate:,.0f} records/s, {together}")
        if number < 0:
            # Neither topic's burst is to take much longer than three times what was asked for.
            rate = min(bursts[few][-1].rate, bursts[many][-1].rate * 3)
            calls = max(_WARM_CALLS, round(rate * scale.seconds / len(values)))
    if keys is not None and many.offsets.used != scale.many:
        raise RuntimeError(f"{many.offsets.used} of {scale.many} partitions hold a record")
    counted = {load: of[2:] for load, of in bursts.items()}
    found = share(
        f"{scale.many:,} partitions, of {scale.few}: {title}",
        _LEAST,
        [burst.rate for burst in counted[many]],
        [burst.rate for burst in counted[few]],
        "records/s",
    )
    per_ack = [statistics.mean(burst.per_ack for burst in counted[load]) for load in (many, few)]
    acks = [statistics.median(burst.rate / burst.per_ack for burst in counted[load]) for load in (many, few)]
    found.figures["records_per_ack"] = {"ours": per_ack[0], "base": per_ack[1]}
    found.figures["acks_per_second"] = {"ours": acks[0], "base": acks[1]}
    found.figures["partitions_used"] = {"ours": many.offsets.used, "base": few.offsets.used}
    sizes = f"{per_ack[0]:,.0f} : {per_ack[1]:,.0f} records acknowledged together"
    return replace(found, here=f"{found.here}; {sizes}, {acks[0]:,.0f} : {acks[1]:,.0f} acknowledgements/s")
