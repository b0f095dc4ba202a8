"""What is judged of a run, and the page it makes."""

import json
from pathlib import Path
from xml.etree import ElementTree

from holdfast.chaos.soak.plot import Mark, Panel, page
from holdfast.chaos.soak.probe import NodeSample
from holdfast.chaos.soak.watch import Watch
from holdfast.storage.port import Table


def watch(growing: str = "") -> Watch:
    seen = Watch()
    for t in range(0, 1800, 5):
        for node in ("n1", "n2", "n3"):
            rows = {table.value: 1000 for table in Table}
            if growing in rows:
                rows[growing] += t
            rss = 80_000_000 + (t * 20_000 if growing == "memory" and node == "n2" else 0)
            disk = 50_000_000 + (t * 40_000 if growing == "disk" else 0)
            used = 40_000_000 + (t * 10_000 if growing == "data" else 0)
            seen.note(
                float(t), node, NodeSample(rss, disk, used, 10, 1, 100, 100, node == "n1", t * 0.1, rows)
            )
        seen.client.append((float(t), 25e6 + (t * 10_000 if growing == "client" else 0)))
        seen.published.append((float(t), t * 1000.0))
    seen.restarted.add("n3")
    return seen


def not_flat(seen: Watch) -> list[str]:
    return [name for name, trend in seen.trends().items() if not trend.flat]


def test_a_steady_run_is_flat() -> None:
    assert not_flat(watch()) == []


def test_each_kind_of_growth_is_named() -> None:
    assert not_flat(watch("memory")) == ["n2 memory"]
    assert not_flat(watch("client")) == ["client memory"]
    assert not_flat(watch("data")) == ["n1 data", "n2 data"]
    assert not_flat(watch("disk")) == ["n1 disk", "n2 disk"]
    assert not_flat(watch("producers")) == ["n1 rows of producers", "n2 rows of producers"]


def test_every_table_of_the_state_is_watched() -> None:
    judged = " ".join(watch().trends())
    assert all(f"n1 rows of {table.value}" in judged for table in Table if table is not Table.META)


def test_the_page_is_whole_and_fetches_nothing() -> None:
    text = page("t <1>", ["line & more"], watch().panels(), [Mark(600.0, "n3 back <soon>")])
    assert "<script" not in text
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
    for start in text.split("<svg")[1:]:
        ElementTree.fromstring("<svg" + start.split("</svg>")[0] + "</svg>")


def test_a_gap_between_samples_stays_a_gap() -> None:
    line = [(0.0, 1.0), (5.0, 1.0), (100.0, 1.0), (105.0, 1.0)]
    assert page("t", [], [Panel("p", "MB", {"a": line})], []).count("<polyline") == 2


def test_samples_are_saved(tmp_path: Path) -> None:
    watch().save(tmp_path / "soak.jsonl")
    lines = (tmp_path / "soak.jsonl").read_text().splitlines()
    assert len(lines) == 4 * 360
    assert json.loads(lines[0])["sample"]["rows"]["journal"] == 1000
