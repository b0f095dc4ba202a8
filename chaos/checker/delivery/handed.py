"""What handlers are given: the log's records, and nothing that is settled."""

from __future__ import annotations

from holdfast.chaos.checker.delivery.course import Flow, Group, Story
from holdfast.chaos.checker.history import Outcome
from holdfast.chaos.checker.promises import Findings
from holdfast.chaos.checker.view import View


def check(view: View, group: Group, findings: Findings) -> None:
    """Every partition of the group by itself."""
    for flow in group.flows:
        _mismatch(view, flow, findings)
        _settled(flow, findings)
        if group.semantics == "at_most_once":
            _twice(flow, findings)


def _mismatch(view: View, flow: Flow, findings: Findings) -> None:
    """*handed-mismatch*: a record is what the log holds at its offset, with its key.

    Deliveries may be put together anew from parts of batches: a record that came
    under another's offset would be acknowledged in its place, and one that came
    under another's key be handled beside its own.
    """
    for handed in flow.handed:
        what = f"{flow.where}: session {handed.session} was handed {handed.value!r} at offset {handed.offset}"
        wrong = flow.log.contradiction(handed.offset, handed.value)
        if wrong:
            findings.add("handed-mismatch", f"{what}; {wrong}", handed.at)
            continue
        publish = view.by_value.get(handed.value)
        if publish is not None and handed.key is not None and handed.key != publish.key:
            findings.add(
                "handed-mismatch",
                f"{what} with key {handed.key!r}; it was published with {publish.key!r}",
                handed.at,
            )
        elif not flow.log.holds(handed.offset):
            fault = view.origin_fault(flow.topic, handed.value)
            if fault is not None:
                findings.add(fault[0], f"{what}: {fault[1]}", handed.at)


def settled_since(story: Story) -> float | None:
    """When somebody was told that the record is settled; None: nobody was."""
    told = [told.confirmed for told in story.told if told.outcome == "ack" and told.confirmed is not None]
    used = [one.ended for one in story.consumed if one.outcome is Outcome.OK and one.ended is not None]
    return min([*told, *used], default=None)


def _settled(flow: Flow, findings: Findings) -> None:
    """*handed-after-settled*: what was confirmed as settled is not handed out again.

    The confirmation says that it is durable on a majority: neither a change of
    leader nor a restart may forget it. A seek may, and begins a flow of its own.
    """
    for story in flow.stories.values():
        since = settled_since(story) if story.handed else None
        if since is None:
            continue
        for handed in story.handed:
            if handed.came > since and not flow.group.doubtful(handed):
                findings.add(
                    "handed-after-settled",
                    f"{flow.where}: offset {story.offset} was handed to session {handed.session}"
                    f" {handed.came - since:.3f} s after it was confirmed as settled",
                    handed.at,
                )


def _twice(flow: Flow, findings: Findings) -> None:
    """*once-at-most*: a group that asked for it is handed no record twice.

    Not even after a change of leader: the position is durable before the record
    leaves the broker.
    """
    for story in flow.stories.values():
        if len(story.handed) > 1:
            first, again = story.handed[:2]
            findings.add(
                "once-at-most",
                f"{flow.where}: offset {story.offset} was handed to session {first.session} at {first.at:.3f}"
                f" and to session {again.session} at {again.at:.3f}",
                again.at,
            )
