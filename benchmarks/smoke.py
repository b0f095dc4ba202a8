"""``make bench-smoke``: the figures of benchmarks/README.md, on three local brokers.

Medians of several runs; the brokers and the client share this machine, so the
ratios between rows say more than any one of them.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

import echo
import sdk
import uvloop
from failover import failovers
from gigabytes import grow
from harness import Row, calibration, repeat, report
from wire import Wire, request_of

import holdfast
from holdfast.chaos.processes import LocalCluster

SECTIONS = ("wire", "sdk", "failover", "growth")


async def wire_rows(cluster: LocalCluster, times: int) -> list[Row]:
    leader = cluster.wait_leader()
    wire = Wire(cluster.brokers[leader].client_address)
    await wire.create_topic("wire", 1)
    small, large = request_of("wire", 100), request_of("wire", 100_000)

    async def megabytes() -> float:
        return await wire.pipelined(large, 1500, 64) * 0.1

    rows = [
        await repeat(
            "sequential publish, p50",
            "ms",
            2.6,
            lambda: wire.sequential(small, 400),
            times=times,
            higher_is_better=False,
        ),
        await repeat(
            "128 concurrent unary publishers",
            "publish/s",
            2050,
            lambda: wire.concurrent(small, 128, 5120),
            times=times,
        ),
        await repeat(
            "one pipelined stream, batches of 100 B",
            "batches/s",
            3490,
            lambda: wire.pipelined(small, 10_000, 512),
            times=times,
        ),
        await repeat("one pipelined stream, batches of 100 KB", "MB/s", 161, megabytes, times=times),
    ]
    await wire.channel.close()
    return rows


async def sdk_rows(cluster: LocalCluster, times: int) -> list[Row]:
    values = sdk.values_of(400_000)
    async with holdfast.connect(cluster.endpoints) as bus:
        await bus.create_topic("many", partitions=3, if_not_exists=True)
        await bus.create_topic("each", partitions=3, if_not_exists=True)
        await bus.create_topic("read", partitions=3, if_not_exists=True)
        await bus.publish_many("read", values)
        return [
            await repeat(
                "SDK publish_many, records of 100 B",
                "records/s",
                200_000,
                lambda: sdk.publish_many(bus, "many", values),
                times=times,
            ),
            await repeat(
                "SDK publish(), each awaited",
                "records/s",
                80_000,
                lambda: sdk.publish_each(bus, "each", values[:200_000]),
                times=times,
            ),
            await repeat(
                "SDK replay by batches",
                "records/s",
                500_000,
                lambda: sdk.replay_batches(bus, "read", len(values)),
                times=times,
            ),
            await repeat(
                "SDK replay record by record",
                "records/s",
                250_000,
                lambda: sdk.replay_records(bus, "read", len(values)),
                times=times,
            ),
        ]


async def failover_rows(cluster: LocalCluster, times: int) -> list[Row]:
    measured = await failovers(cluster, "failover", times)
    spread = (min(measured), max(measured))
    return [
        Row(f"failover, median of {times}", statistics.median(measured), "ms", 500, False, spread),
        Row(f"failover, worst of {times}", max(measured), "ms", 1000, False, spread),
    ]


async def growth_rows(cluster: LocalCluster, gigabytes: float) -> list[Row]:
    growth = await grow(cluster, gigabytes)

    def row(name: str, value: float, unit: str, goal: float) -> Row:
        return Row(name, value, unit, goal, False, (value, value))

    size = f"{growth.payload_bytes / 1e9:.1f} GB"
    return [
        row(f"anonymous memory while {size} are published", growth.rss_anon_mb, "MB", 300),
        row("bytes written per payload byte, batches of 100 KB", growth.written_per_byte, "ratio", 1.35),
        row(f"restart with a log of {size}", growth.restart_seconds, "s", 3.0),
    ]


async def run(arguments: argparse.Namespace) -> list[Row]:
    machine = calibration(arguments.data or Path(tempfile.gettempdir()))
    where = sys.stderr if arguments.json else sys.stdout
    print(f"{machine}, bare gRPC call {await echo.sequential():.2f} ms", file=where, flush=True)
    rows: list[Row] = []
    for section in arguments.only or SECTIONS:
        with (
            tempfile.TemporaryDirectory(prefix="holdfast-bench-", dir=arguments.data) as scratch,
            LocalCluster(Path(scratch)) as cluster,
        ):
            if section == "wire":
                rows += await wire_rows(cluster, arguments.times)
            elif section == "sdk":
                rows += await sdk_rows(cluster, arguments.times)
            elif section == "failover":
                rows += await failover_rows(cluster, arguments.kills)
            else:
                rows += await growth_rows(cluster, arguments.gigabytes)
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench-smoke", description=__doc__)
    parser.add_argument("--only", action="append", choices=SECTIONS, help="run these sections only")
    parser.add_argument("--times", type=int, default=5, help="counted runs per row")
    parser.add_argument("--kills", type=int, default=20, help="leaders to kill")
    parser.add_argument("--gigabytes", type=float, default=5.0, help="payload of the growth section")
    parser.add_argument("--data", type=Path, help="folder for the brokers' data")
    parser.add_argument("--json", action="store_true", help="one JSON object per row")
    arguments = parser.parse_args()
    report(uvloop.run(run(arguments)), as_json=arguments.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
