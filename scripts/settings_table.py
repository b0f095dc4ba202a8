"""The table of settings in docs/operations.md, made from ``rpc/settings.py``.

Without arguments the file is rewritten; a test calls ``table`` to see that it
is up to date.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import msgspec

from holdfast.rpc import settings

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "operations.md"
BEGIN, END = "<!-- settings: begin -->\n", "<!-- settings: end -->\n"

#: For settings whose name says it all to a reader of the code, but not of a table.
_MEANINGS = {
    "members": "All voters, as `n1=host:clientport/peerport,…` or a table; none: a single node.",
    "node_id": "This broker's name, unique in the cluster; fixed once it has data.",
    "cluster_id": "Brokers of another cluster are refused; fixed once there is data.",
    "data_dir": "Where everything is kept.",
    "advertise": "What clients are told instead of `listen`.",
    "peer_advertise": "What brokers are told instead of `peer_listen`.",
    "log.level": "`debug`, `info`, `warning` or `error`.",
    "log.format": "`human`, or `json`: one object a line.",
    "limits.max_key_bytes": "One record's key.",
    "limits.max_headers": "Headers of one record.",
    "limits.max_topics": "Topics of the cluster.",
    "limits.default_partitions": "Partitions of a topic made without a count.",
    "limits.max_inflight_bytes": "The same, in bytes.",
    "limits.stream_inflight_bytes": "The same, in bytes.",
    "raft.heartbeat_ms": "How often the leader is heard of; at most a third of the election timeout.",
    "raft.election_timeout_min_ms": "Silence of the leader before an election: at least this,",
    "raft.election_timeout_max_ms": "and at most this, drawn at random each time.",
    "telemetry.enabled": "Off costs nothing.",
}


def table() -> str:
    """The table as Markdown."""
    rows = ["| setting | default | meaning |\n|---|---|---|\n"]
    for name, default, meaning in _settings():
        rows.append(f"| `{name}` | {_shown(name, default)} | {meaning} |\n")
    return "".join(rows)


def _settings() -> Iterator[tuple[str, object, str]]:
    comments = _comments()
    for field in msgspec.structs.fields(settings.Settings):
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            section = field.type
            for inner in msgspec.structs.fields(section):
                name = f"{field.name}.{inner.name}"
                yield name, inner.default, _meaning(name, comments.get((section.__name__, inner.name), ""))
        else:
            default = {} if field.default is msgspec.NODEFAULT else field.default
            yield field.name, default, _meaning(field.name, comments.get(("Settings", field.name), ""))


def _meaning(name: str, comment: str) -> str:
    return _MEANINGS.get(name, comment)


def _comments() -> dict[tuple[str, str], str]:
    """The ``#:`` lines above each field, by class and field."""
    found: dict[tuple[str, str], str] = {}
    within, pending = "", []
    for line in Path(settings.__file__).read_text().splitlines():
        if match := re.match(r"class (\w+)", line):
            within = match[1]
        if match := re.match(r"    #: ?(.*)", line):
            pending.append(match[1])
        elif match := re.match(r"    (\w+):", line):
            found[within, match[1]] = " ".join(pending)
            pending = []
        else:
            pending = []
    return found


def _shown(name: str, default: object) -> str:
    if default in ("", {}):
        return "none"
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, int) and "bytes" in name:
        for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
            if default % size == 0:
                return f"{default // size} {unit}"
    return f"{default:,}" if isinstance(default, int) else f"`{default}`"


def main() -> None:
    text = DOCUMENT.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    DOCUMENT.write_text(before + BEGIN + table() + END + after)


if __name__ == "__main__":
    main()
