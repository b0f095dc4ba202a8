"""The report of a drill: one HTML file without script, style sheet or picture from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from holdfast.chaos.checker.history import Fault, Publish, Read
from holdfast.chaos.checker.history import Outcome as Ended
from holdfast.chaos.drills.plot import Timeline, draw, quantile
from holdfast.chaos.drills.stage import Outcome

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2330; --soft: #5d6878; --paper: #ffffff; --line: #d5dae1;
  --fault: #d64545; --acks: #1f6fb2; --p50: #2a8c5c; --p99: #b9770e; --good: #22804f; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ee; --soft: #9aa5b4; --paper: #14181f;
  --line: #333b47; --fault: #ff7b72; --acks: #6cb6ff; --p50: #57c793; --p99: #f0b95a; --good: #57c793;
  --bad: #ff8a80; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 1000px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: .2rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
.good { color: var(--good); } .bad { color: var(--bad); } .soft { color: var(--soft); }
pre, code { font: 12.5px/1.45 ui-monospace, monospace; } pre { overflow-x: auto; padding: .6rem;
  border: 1px solid var(--line); border-radius: 4px; white-space: pre-wrap; overflow-wrap: anywhere; }
table { border-collapse: collapse; } td, th { text-align: left; padding: .15rem 1.2rem .15rem 0;
  vertical-align: top; } th { font-weight: 600; color: var(--soft); }
svg { width: 100%; height: auto; } svg text { font: 11px system-ui, sans-serif; fill: var(--ink); }
svg .title { fill: var(--soft); } svg .grid { stroke: var(--line); stroke-width: .6; }
svg .axis { stroke: var(--soft); } svg .fault { fill: var(--fault); opacity: .13; }
svg .bar { fill: var(--fault); opacity: .45; } svg .area { fill: var(--acks); opacity: .18; }
svg polyline { fill: none; stroke-width: 1.6; } svg .acks { stroke: var(--acks); }
svg polyline.p50 { stroke: var(--p50); } svg polyline.p99 { stroke: var(--p99); }
svg circle.p50, svg text.p50.key { fill: var(--p50); } svg circle.p99, svg text.p99.key { fill: var(--p99); }
svg .leader { opacity: .75; } svg .on { fill: var(--ink); }
svg .c0 { fill: #4f9bd9; } svg .c1 { fill: #58b98a; } svg .c2 { fill: #d9a441; } svg .c3 { fill: #b07cd0; }
svg .c4 { fill: #d97a6c; }
"""


def render(outcome: Outcome, *, summary: str, command: str, began: str, history_file: str = "") -> str:
    """The page.

    Args:
        summary: what the drill does.
        command: repeats the run.
        began: date and time of the run.
        history_file: where the history was saved; empty: it was not.
    """
    events = outcome.history.events
    acks = [
        (event.started, event.ended)
        for event in events
        if isinstance(event, Publish) and event.outcome is Ended.OK and event.ended is not None
    ]
    faults = [event for event in events if isinstance(event, Fault)]
    end = max([ended for _, ended in acks] + [fault.ended or fault.at for fault in faults], default=1.0)
    verdict = ("good", "passed") if outcome.passed else ("bad", "FAILED")
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8"/>',
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>',
        f"<title>drill {escape(outcome.name)}: {verdict[1]}</title><style>{_STYLE}</style></head><body>",
        f'<h1>{escape(outcome.name)}: <span class="{verdict[0]}">{verdict[1]}</span></h1>',
        f'<p>{escape(summary)}. <span class="soft">{escape(began)}, {outcome.took:.1f} s.</span></p>',
        f"<pre>{escape(outcome.line())}</pre>",
        *_violations(outcome),
        draw(Timeline(acks, outcome.seen, faults, outcome.nodes, end * 1.02)),
        "<h2>Numbers</h2>",
        _table(_numbers(outcome, acks)),
        "<h2>Faults</h2>",
        _table([("at, s", "for, s", "fault", "target", "what"), *map(_fault, faults)])
        if faults
        else "<p>none</p>",
        "<h2>Again</h2>",
        f"<pre>{escape(command)}</pre>",
    ]
    if history_file:
        parts.append("<p>Judge the history again:</p>")
        parts.append(f"<pre>python -m holdfast.chaos.checker {escape(history_file)}</pre>")
    parts += _logs(outcome.logs)
    parts.append("</body></html>")
    return "\n".join(parts) + "\n"


def _violations(outcome: Outcome) -> list[str]:
    if outcome.passed:
        return ["<p>No promise was broken.</p>"]
    items = "".join(
        f"<li><b>{escape(found.promise)}</b> {escape(found.detail)}"
        + (f' <span class="soft">at {found.at:.2f} s</span>' if found.at >= 0 else "")
        + "</li>"
        for found in outcome.violations
    )
    return ['<h2 class="bad">Broken promises</h2>', f"<ol>{items}</ol>"]


def _numbers(outcome: Outcome, acks: Sequence[tuple[float, float]]) -> list[tuple[str, ...]]:
    tally = outcome.tally
    latencies = [(ended - begun) * 1e3 for begun, ended in acks]
    reads = [event for event in outcome.history.events if isinstance(event, Read)]
    shares = (0.5, 0.99, 1.0)
    good = sum(1 for read in reads if read.outcome is Ended.OK)
    return [
        ("acknowledged", str(tally.acked)),
        ("lost", str(tally.lost)),
        ("duplicated", str(tally.duplicated)),
        ("unknown outcome", str(tally.unknown)),
        ("failed", str(tally.failed)),
        ("recovery, ms", f"{outcome.recovery_ms:.0f}"),
        ("latency p50 / p99 / max, ms", " / ".join(f"{quantile(latencies, share):.1f}" for share in shares)),
        ("replays, of which answered", f"{len(reads)}, {good}"),
        ("terms seen", ", ".join(f"{term} ({node})" for node, term in _terms(outcome))),
        ("events in the history", str(len(outcome.history.events))),
    ]


def _terms(outcome: Outcome) -> list[tuple[str, int]]:
    return list(
        dict.fromkeys((node, term) for _, node, term in sorted(outcome.seen, key=lambda look: look[0]))
    )


def _fault(fault: Fault) -> tuple[str, ...]:
    lasted = "" if fault.ended is None else f"{fault.ended - fault.at:.2f}"
    return (f"{fault.at:.2f}", lasted, fault.name, fault.target, fault.detail)


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    lines = []
    for row in rows:
        lines.append("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>")
    return f"<table>{''.join(lines)}</table>"


def _logs(logs: Sequence[tuple[float, str, str]]) -> list[str]:
    """The brokers' last lines as of each fault; what was shown before is not shown again."""
    parts = ["<h2>Brokers' logs around the faults</h2>"]
    shown: dict[str, set[str]] = {}
    for at, node, text in logs:
        known = shown.setdefault(node, set())
        fresh = [line for line in text.splitlines() if line not in known]
        known.update(fresh)
        if fresh:
            parts.append(f"<details open='open'><summary>{escape(node)}, up to {at:.2f} s</summary>")
            parts.append("<pre>" + escape(chr(10).join(fresh)) + "</pre></details>")
    return parts if len(parts) > 1 else [*parts, "<p>nothing was logged</p>"]
