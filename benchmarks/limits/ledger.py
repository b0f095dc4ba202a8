"""A workload's page of the ledger: who used the processors, and for what. No I/O."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from benchmarks.limits import stages, threads
from benchmarks.limits.measured import Measured

#: Shares below this many percent are not listed.
_LEAST = 1.0
_FUNCTIONS = 12


def page(one: Measured) -> list[str]:
    """Everything that is known of one workload."""
    done = one.done
    records = done["records"]
    total = one.cpu_seconds
    lines = [
        f"{one.workload}: {records:,} records in {done['seconds']:.2f} s, {one.per_second:,.0f} a second"
        + (f", p50 {done['p50_ms']:.2f} ms, p99 {done['p99_ms']:.2f} ms" if done["p99_ms"] else ""),
        f"CPU: {total / records * 1e6:.2f} s per million records, {total / done['seconds']:.2f} cores:",
        "",
        *threads.table(one.used, records, 1 if done["p99_ms"] else 1000),
        "",
    ]
    lines += _processor(one)
    for process in one.samples.stacks:
        lines += _functions(one, process)
    for process, calls in one.calls.items():
        lines += _calls(process, calls)
    lines += [f"Not looked at for want of {missing}." for missing in one.samples.missing]
    return lines


def _roles(one: Measured) -> dict[int, tuple[str, str]]:
    """(process, role) of each thread id."""
    found = {}
    for process, pid in one.pids.items():
        for tid in one.threads_of[process]:
            role = "event loop" if tid == pid else threads.role_of(one.names[tid])
            found[tid] = (process, role)
    return found


def _processor(one: Measured) -> list[str]:
    if not one.samples.processor:
        return []
    roles = _roles(one)
    counts: dict[tuple[str, str], Counter[str]] = {}
    for tid, chain in one.samples.processor:
        if tid in roles:
            counts.setdefault(roles[tid], Counter())[stages.of_sample(chain)] += 1
    everything = sum(sum(stage.values()) for stage in counts.values())
    lines = ["What the processors did, by library and system call (share of all samples of Holdfast's):", ""]
    for (process, role), stage in sorted(counts.items(), key=lambda item: -sum(item[1].values())):
        share = 100 * sum(stage.values()) / everything
        if share >= 2 * _LEAST:
            lines.append(f"{share:5.1f} %  {process}, {role}")
            lines += _listed(stages.shares(stage), share)
    both: Counter[str] = Counter()
    for stage in counts.values():
        both += stage
    return [*lines, "", "All of them together:", "", *_listed(stages.shares(both), 100.0), ""]


def _listed(shares: Iterable[tuple[str, float]], whole: float) -> list[str]:
    """Parts of ``whole`` percent, each in percent of everything."""
    parts = [(share * whole / 100, stage) for stage, share in shares]
    return [f"    {share:5.1f} %  {stage}" for share, stage in parts if share >= _LEAST]


def _functions(one: Measured, process: str) -> list[str]:
    stacks = one.samples.stacks[process]
    lines = []
    for thread in sorted({name for name, _, _ in stacks}):
        role = "event loop" if thread == "MainThread" else threads.role_of(thread)
        counts = stages.by_stage(stacks, thread)
        if sum(counts.values()) < 10:
            continue
        lines += [
            f"{process}, {role}: Python's stages ({sum(counts.values())} samples not waiting for work)",
            "",
        ]
        lines += [f"    {share:5.1f} %  {stage}" for stage, share in stages.shares(counts) if share >= _LEAST]
        lines += ["", "  its innermost functions", ""]
        functions = stages.shares(stages.by_function(stacks, thread))[:_FUNCTIONS]
        lines += [f"    {share:5.1f} %  {function}" for function, share in functions if share >= _LEAST]
        lines.append("")
    return lines


def _calls(process: str, calls: Mapping[str, float]) -> list[str]:
    ordered = sorted(calls.items(), key=lambda item: -item[1])
    told = ", ".join(f"{name} {count:.1f}" for name, count in ordered if count >= 0.05)
    return [f"System calls per record, {process} (counted by strace, which slows them): {told}", ""]
