"""Processor time and hand-overs per thread, from /proc (Linux)."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Usage:
    """What one thread, or several, have used.

    Attributes:
        seconds: on a processor.
        waited: ready to run, and no processor free, seconds.
        voluntary: times it gave up the processor to wait.
        forced: times the processor was taken from it.
    """

    seconds: float = 0.0
    waited: float = 0.0
    voluntary: int = 0
    forced: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.seconds + other.seconds,
            self.waited + other.waited,
            self.voluntary + other.voluntary,
            self.forced + other.forced,
        )

    def __sub__(self, other: Usage) -> Usage:
        return Usage(
            self.seconds - other.seconds,
            self.waited - other.waited,
            self.voluntary - other.voluntary,
            self.forced - other.forced,
        )


Threads = dict[tuple[int, str], Usage]


def of(pid: int) -> Threads:
    """All threads of a process, by (thread id, name). A thread that ends meanwhile is left out."""
    found: Threads = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            name = (task / "comm").read_text().strip()
            ran, waited, _ = (int(field) for field in (task / "schedstat").read_text().split())
            status = dict(
                line.split(":\t", 1) for line in (task / "status").read_text().splitlines() if ":\t" in line
            )
            found[int(task.name), name] = Usage(
                ran / 1e9,
                waited / 1e9,
                int(status["voluntary_ctxt_switches"]),
                int(status["nonvoluntary_ctxt_switches"]),
            )
    return found


def since(before: Threads, after: Threads, main: int) -> dict[str, Usage]:
    """What was used between two looks at the process ``main``, by the role of its threads."""
    used: dict[str, Usage] = {}
    started = {tid: usage for (tid, _), usage in before.items()}
    for (tid, name), usage in after.items():
        role = "event loop" if tid == main else role_of(name)
        used[role] = used.get(role, Usage()) + usage - started.get(tid, Usage())
    return {role: usage for role, usage in used.items() if usage.voluntary or usage.seconds > 0}


def role_of(name: str) -> str:
    """What a thread is for, from its name in /proc (15 characters)."""
    for part, role in _ROLES:
        if part in name:
            return role
    return f"other: {name}"


_ROLES = (
    ("holdfast-engine", "engine"),
    ("event_engine", "gRPC's event engine"),
    ("grpc_global_tim", "gRPC's timer"),
    ("grpc", "gRPC, other"),
    ("_poller", "gRPC's poller"),
    ("Thread-1", "gRPC's poller"),
    ("commit", "group committer"),
    ("scrub", "scrub"),
    ("lifeguard", "gRPC, other"),
    ("uvloop", "executor"),
    ("asyncio", "executor"),
    ("ThreadPool", "executor"),
    ("resolver", "resolver"),
)


def table(used: Mapping[str, Mapping[str, Usage]], count: int, per: int = 1) -> list[str]:
    """Processor time, waiting for a processor, and switches ``per`` so many of ``count`` records.

    By process and role; what is below a thousandth of all is left out.
    """
    each = f"per {per:,} records" if per > 1 else "per record"
    lines = [f"{each:<33} {'CPU µs':>8} {'run queue µs':>13} {'gives way':>10} {'forced':>8}"]
    scale = per / count
    least = sum(usage.seconds for roles in used.values() for usage in roles.values()) / 1000
    for process, roles in used.items():
        for role, usage in sorted(roles.items(), key=lambda item: -item[1].seconds):
            if usage.seconds >= least:
                figures = f"{usage.seconds * scale * 1e6:8.0f} {usage.waited * scale * 1e6:13.0f}"
                figures += f" {usage.voluntary * scale:10.2f} {usage.forced * scale:8.2f}"
                lines.append(f"{process:<12} {role:<20} {figures}")
    return lines
