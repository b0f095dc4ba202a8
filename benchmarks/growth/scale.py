"""How much of everything."""

from __future__ import annotations

from dataclasses import dataclass, replace

#: Replicas, and what the store writes beside the payload, generously.
_COPIES = 3 * 1.15


@dataclass(frozen=True, slots=True)
class Scale:
    """Bytes are of payload, before replication.

    Attributes:
        large: the long log.
        small: what the short log starts with; it is renewed before it would pass twice that.
        burst: of one measurement of the log.
        pairs: counted measurements of each side, of log and of partitions.
        restarts: of each cluster.
        few, many: partitions.
        seconds: about so long a burst to few partitions takes.
        cuts: of the leader's network.
    """

    large: float = 8e9
    small: float = 200e6
    burst: float = 63e6
    pairs: int = 6
    restarts: int = 5
    few: int = 10
    many: int = 1000
    seconds: float = 2.0
    cuts: int = 10

    @property
    def disk(self) -> float:
        """Bytes of disk the logs take at most, over all brokers."""
        grown = self.large + (self.pairs + 1) * self.burst
        return (grown + 2 * self.small) * _COPIES


FULL = Scale()
QUICK = Scale(large=300e6, small=50e6, burst=8e6, pairs=2, restarts=2, seconds=0.5, cuts=2)


def of(quick: bool, gigabytes: float | None) -> Scale:
    """With a log of ``gigabytes``, where that is said."""
    scale = QUICK if quick else FULL
    return scale if gigabytes is None else replace(scale, large=gigabytes * 1e9)


def lacking_room(scale: Scale, free: int) -> str:
    """What is missing on a disk with ``free`` bytes; empty: nothing is."""
    if scale.disk <= free:
        return ""
    return (
        f"three brokers with logs of {scale.large / 1e9:g} GB take {scale.disk / 1e9:.1f} GB of disk, "
        f"{free / 1e9:.1f} GB are free: {(scale.disk - free) / 1e9:.1f} GB are missing "
        "(--directory: another disk; --gigabytes: a shorter log)"
    )
