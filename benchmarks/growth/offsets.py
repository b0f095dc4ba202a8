"""What was acknowledged has its place: no hole, no offset given twice. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from holdfast import BatchAck


class Offsets:
    """Where the partitions of a topic with a single publisher end."""

    def __init__(self, partitions: int) -> None:
        self._ends = dict.fromkeys(range(partitions), 0)

    @property
    def records(self) -> int:
        return sum(self._ends.values())

    @property
    def used(self) -> int:
        """Partitions that hold a record."""
        return sum(1 for end in self._ends.values() if end)

    def take(self, acks: Iterable[BatchAck], expected: int) -> None:
        """Acknowledgements of ``expected`` records, in any order, with none under way.

        Raises RuntimeError unless they continue every partition exactly.
        """
        count = 0
        for ack in sorted(acks, key=lambda ack: (ack.partition, ack.base_offset)):
            end = self._ends[ack.partition]
            if ack.base_offset != end:
                raise RuntimeError(
                    f"partition {ack.partition} was to go on at {end}, a batch was put at {ack.base_offset}"
                )
            self._ends[ack.partition] = end + ack.count
            count += ack.count
        if count != expected:
            raise RuntimeError(f"{count} of {expected} records were acknowledged")

    def differing(self, told: Mapping[int, int]) -> str:
        """How the ends that a broker told by partition differ from ours; empty: they do not."""
        wrong = [
            f"partition {partition} ends at {told.get(partition)}, not {end}"
            for partition, end in self._ends.items()
            if told.get(partition) != end
        ]
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        return wrong[0] + more if wrong else ""
