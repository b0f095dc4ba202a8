"""All limits of the machine and of the parts, measured one after another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.limits import disk, engine_alone, grpc_alone, loopback, sdk_alone, store
from benchmarks.limits.apart import alone, run
from holdfast.client.options import ClientOptions
from holdfast.cluster.delivery.settings import DeliverySettings

_T = TypeVar("_T")
_HERE = "benchmarks.limits."

#: A first election and a cold store are not to be seen in the engines' rate.
_ENGINE_SECONDS = 1.5

#: What the SDK sends in one request when it has plenty, and what a replay's message holds.
REQUEST = ClientOptions().batch_bytes
MESSAGE = DeliverySettings().default_message_bytes
#: Sizes of appends to the disk: from a batch to what one commit takes at most.
APPENDS = (100 << 10, REQUEST, 1 << 20, 4 << 20)


@dataclass(frozen=True, slots=True)
class Physical:
    """What the parts give alone; names say how many did it at once."""

    sync: disk.Appended
    sync_three: list[disk.Appended]
    append: dict[int, disk.Appended]
    #: Once more after the workloads: a disk that has been written to for a while may be slower.
    append_after: dict[int, disk.Appended]
    append_three: dict[int, list[disk.Appended]]
    store_small: store.Committed
    store_small_three: list[store.Committed]
    store_bulk: store.Committed
    store_bulk_three: list[store.Committed]
    link: loopback.Link
    copies: float
    hand_over: float
    grpc: grpc_alone.Alone
    coded: dict[int, sdk_alone.Coded]
    engines: engine_alone.Engines

    @property
    def disk_third(self) -> float:
        """MB/s: the bandwidth of appends with fdatasync at the best size, shared by three replicas.

        The mean of before and after the workloads.
        """
        both = [max(one["megabytes"] for one in each.values()) for each in (self.append, self.append_after)]
        return _mean(both) / 3

    @property
    def disk_each_of_three(self) -> float:
        """MB/s of each when three append at once, at the best size."""
        return max(_mean([one["megabytes"] for one in three]) for three in self.append_three.values())


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def appends(folder: Path, seconds: float) -> dict[int, disk.Appended]:
    """One process that appends and fdatasyncs, by size."""
    return {size: alone(_HERE + "disk:append", folder=folder, seconds=seconds, size=size) for size in APPENDS}


def measure(folder: Path, seconds: float, tell: Callable[[str], None]) -> Physical:
    """Each part for about ``seconds``; files go under ``folder``."""

    def part(name: str, work: Callable[[], _T]) -> _T:
        tell(name)
        return work()

    def three(function: str, **arguments: Any) -> list[Any]:
        return run(_HERE + function, [{"folder": folder, "seconds": seconds, **arguments}] * 3)

    def one(function: str, **arguments: Any) -> Any:
        return alone(_HERE + function, **arguments)

    def here(function: str, **arguments: Any) -> Any:
        return one(function, folder=folder, seconds=seconds, **arguments)

    bulk = {"size": REQUEST, "each": 4}
    return Physical(
        sync=part("fdatasync of 4 KiB", lambda: here("disk:append", size=4096)),
        sync_three=part("the same, three at once", lambda: three("disk:append", size=4096)),
        append=part("appends", lambda: appends(folder, seconds)),
        append_after={},
        append_three=part(
            "appends, three at once", lambda: {size: three("disk:append", size=size) for size in APPENDS[2:]}
        ),
        store_small=part("the store, small commits", lambda: here("store:commit", size=150, each=1)),
        store_small_three=part("the same, three at once", lambda: three("store:commit", size=150, each=1)),
        store_bulk=part("the store, large commits", lambda: here("store:commit", **bulk)),
        store_bulk_three=part("the same, three at once", lambda: three("store:commit", **bulk)),
        link=part("loopback", lambda: one("loopback:link", rounds=3000, seconds=seconds / 2)),
        copies=part("copies of memory", lambda: one("loopback:copies", seconds=seconds / 2)),
        hand_over=part("hand-over between threads", lambda: one("loopback:hand_over")),
        grpc=part(
            "gRPC alone",
            lambda: one("grpc_alone:alone", rounds=1500, megabytes=300, sizes=sorted({REQUEST, MESSAGE})),
        ),
        coded=part(
            "batches encoded and decoded",
            lambda: {
                size: one("sdk_alone:code", size=size, seconds=seconds / 2) for size in (100, 1024, 10240)
            },
        ),
        engines=part(
            "engines without gRPC",
            lambda: engine_alone.alone(str(folder), [REQUEST], 1000, max(_ENGINE_SECONDS, seconds)),
        ),
    )
