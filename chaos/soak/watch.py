"""Samples of a whole run, and what they say."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from holdfast.chaos.soak.plot import Mark, Panel, Point
from holdfast.chaos.soak.probe import MB, NodeSample
from holdfast.chaos.soak.returns import Return
from holdfast.chaos.soak.slope import Trend, judge
from holdfast.storage.port import Table

#: The data file never shrinks, and freed pages wait for the oldest reader: it grows by what is published
#: while one stands still (a snapshot being sent on a busy machine), and then no more. What is *in* it is
#: judged strictly.
DISK_ALLOWANCE_MB = 32.0
#: Rows that would pile up if something were never forgotten.
_TABLES = tuple(table.value for table in Table if table is not Table.META)
_OF_THE_LOG = ("journal", "index", "refs")


@dataclass
class Watch:
    """``nodes``: samples by broker; ``client``: the load generator's own memory, bytes.

    A broker that was restarted begins anew, perhaps with an empty disk, which would
    hide a leak: it is shown, and not judged. The state is the same on all.
    """

    nodes: dict[str, list[tuple[float, NodeSample]]] = field(default_factory=dict)
    client: list[Point] = field(default_factory=list)
    remembered: list[Point] = field(default_factory=list)
    published: list[Point] = field(default_factory=list)
    returns: list[Return] = field(default_factory=list)
    restarted: set[str] = field(default_factory=set)

    def note(self, at: float, node: str, sample: NodeSample) -> None:
        self.nodes.setdefault(node, []).append((at, sample))

    @property
    def steady(self) -> list[str]:
        """Brokers that ran all the time."""
        return [node for node in self.nodes if node not in self.restarted]

    def rss_mb(self, node: str) -> list[Point]:
        return [(t, s.rss_anon / MB) for t, s in self.nodes[node]]

    def disk_mb(self, node: str) -> list[Point]:
        return [(t, s.disk / MB) for t, s in self.nodes[node]]

    def rows(self, node: str, table: str) -> list[Point]:
        return [(t, float(s.rows[table])) for t, s in self.nodes[node]]

    def trends(self) -> dict[str, Trend]:
        """What is judged, by name. Memory, data and disk in MB; rows may grow by a tenth, or by 500."""
        found: dict[str, Trend] = {"client memory": judge([(t, v / MB) for t, v in self.client])}
        for node in self.steady:
            found[f"{node} memory"] = judge(self.rss_mb(node))
            found[f"{node} data"] = judge([(t, s.used / MB) for t, s in self.nodes[node]])
            found[f"{node} disk"] = judge(self.disk_mb(node), allowance=DISK_ALLOWANCE_MB)
            for table in _TABLES:
                found[f"{node} rows of {table}"] = judge(self.rows(node, table), share=0.1, allowance=500)
        return found

    def save(self, path: Path) -> None:
        """All samples, one JSON object a line."""
        with path.open("wb") as out:
            for node, samples in self.nodes.items():
                for at, sample in samples:
                    out.write(
                        msgspec.json.encode({"at": round(at, 1), "node": node, "sample": sample}) + b"\n"
                    )
            for at, memory in self.client:
                out.write(msgspec.json.encode({"at": round(at, 1), "client_rss_anon": memory}) + b"\n")

    def panels(self) -> list[Panel]:
        """For the report."""
        base = [(t, float(s.last_log_index - s.first_log_index)) for t, s in self._leader()]
        rate = [
            (t, (n - before) / max(t - since, 1e-9))
            for (since, before), (t, n) in zip(self.published, self.published[1:], strict=False)
        ]
        memory: dict[str, list[Point]] = {node: self.rss_mb(node) for node in self.nodes}
        memory["load generator"] = [(t, v / MB) for t, v in self.client]
        leader_rows = {table: [(t, float(s.rows[table])) for t, s in self._leader()] for table in _OF_THE_LOG}
        small_rows = {
            table: [(t, float(s.rows[table])) for t, s in self._leader()]
            for table in _TABLES
            if table not in _OF_THE_LOG
        }
        return [
            Panel("Own memory (RssAnon)", "MB", dict(memory)),
            Panel("Data file, allocated", "MB", {node: self.disk_mb(node) for node in self.nodes}),
            Panel(
                "Data in it",
                "MB",
                {node: [(t, s.used / MB) for t, s in samples] for node, samples in self.nodes.items()},
            ),
            Panel(
                "Free pages inside the data file",
                "",
                {
                    node: [(t, float(s.free_pages)) for t, s in samples]
                    for node, samples in self.nodes.items()
                },
            ),
            Panel("Rows of the leader: log and indexes", "", {**leader_rows, "log length": base}),
            Panel("Rows of the leader: what groups, producers and topics hold", "", dict(small_rows)),
            Panel("Records acknowledged per second", "/s", {"acknowledged": rate}),
        ]

    def marks(self) -> list[Mark]:
        return [Mark(r.at, str(r), "#d62728" if r.wiped else "#888") for r in self.returns]

    def _leader(self) -> list[tuple[float, NodeSample]]:
        samples = [(t, s) for line in self.nodes.values() for t, s in line if s.leads]
        return sorted(samples, key=lambda pair: pair[0])
