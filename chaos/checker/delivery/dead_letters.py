"""Dead letters: a record that is given up goes over in one step, and says where it came from."""

from __future__ import annotations

from collections import defaultdict

from holdfast.chaos.checker.delivery.at_rest import Settled
from holdfast.chaos.checker.delivery.course import Flow, Group, Story
from holdfast.chaos.checker.delivery.handed import settled_since
from holdfast.chaos.checker.delivery_events import DeadLetter, Redriven
from holdfast.chaos.checker.promises import Findings
from holdfast.chaos.checker.view import View


def check(view: View, groups: list[Group], findings: Findings) -> None:
    """*dead-and-alive*: a record is in the group or in the dead-letter topic: never both, never neither.

    The same entry takes it out of the one and puts it into the other. In both,
    it is handled again beside its redrive; in neither, it is lost without
    anybody being told. (What is in neither is found in ``at_rest``.)
    """
    for group in groups:
        for flow in group.flows:
            for story in flow.stories.values():
                if story.dead and not flow.sought:
                    _once(flow, story, findings)
                    _alive(flow, story, findings)
                _rejected(flow, story, findings)
            _settled(flow, findings)
    _headers(view, {group.name: group for group in groups}, findings)
    _redriven(view, findings)


def _spot(letter: DeadLetter | Redriven) -> str:
    return f"{letter.topic}/{letter.partition} offset {letter.offset}"


def _once(flow: Flow, story: Story, findings: Findings) -> None:
    """One letter for each life: a redriven record that dies again says how often it was."""
    first: dict[int, DeadLetter] = {}
    for letter in story.dead:
        other = first.setdefault(letter.redrives, letter)
        if other is not letter:
            findings.add(
                "dead-and-alive",
                f"{flow.where}: offset {story.offset} is a dead letter twice, at {_spot(other)} and"
                f" {_spot(letter)}",
            )


def _alive(flow: Flow, story: Story, findings: Findings) -> None:
    """What died was settled by that, and by nothing else; nobody is handed it again."""
    letter = story.dead[0]
    since = settled_since(story)
    if since is not None:
        findings.add(
            "dead-and-alive",
            f"{flow.where}: offset {story.offset} was confirmed as settled at {since:.3f}, and is the dead"
            " letter"
            f" at {_spot(letter)}",
            since,
        )
    for handed in story.handed:
        if handed.attempt > letter.attempts:
            findings.add(
                "dead-and-alive",
                f"{flow.where}: offset {story.offset} came to session {handed.session} as attempt"
                f" {handed.attempt};"
                f" its dead letter at {_spot(letter)} says that it died of attempt {letter.attempts}",
                handed.at,
            )


def _rejected(flow: Flow, story: Story, findings: Findings) -> None:
    """What was confirmed as rejected is a dead letter, and not handed out again."""
    if not flow.group.dead_letters:
        return
    for told in story.told:
        if told.outcome != "reject" or told.confirmed is None:
            continue
        for handed in story.handed:
            restored = any(told.at < at <= handed.came for at in story.restored)
            if handed.came > told.confirmed and not restored and not flow.group.doubtful(handed):
                findings.add(
                    "dead-and-alive",
                    f"{flow.where}: offset {story.offset} came to session {handed.session} at"
                    f" {handed.came:.3f};"
                    f" it was rejected for good at {told.at:.3f}",
                    handed.at,
                )


def _settled(flow: Flow, findings: Findings) -> None:
    """At rest, what is a dead letter counts as settled on every node."""
    if flow.sought:
        return
    for rest in flow.rest:
        settled = Settled(rest)
        for story in flow.stories.values():
            if story.dead and story.offset not in settled and story.offset >= flow.log.start:
                findings.add(
                    "dead-and-alive",
                    f"{flow.where}: offset {story.offset} is the dead letter at {_spot(story.dead[0])}, and"
                    " on"
                    f" {rest.node} it is still to be handled",
                )


def _headers(view: View, groups: dict[str, Group], findings: Findings) -> None:
    """What a dead letter says of itself is true."""
    for letter in view.of(DeadLetter):
        what = f"the dead letter {letter.value!r} at {_spot(letter)}"
        group = groups.get(letter.group)
        if group is None:
            findings.add(
                "dead-and-alive", f"{what} says it is of group {letter.group}, which was never defined"
            )
            continue
        if letter.topic not in group.dead_letters:
            findings.add(
                "dead-and-alive",
                f"{what} is of group {letter.group}, which gives nothing up to {letter.topic}",
            )
        origin = f"{letter.origin_topic}/{letter.origin_partition} offset {letter.origin_offset}"
        if letter.origin_topic not in view.cut:
            log = view.log((letter.origin_topic, letter.origin_partition))
            wrong = log.contradiction(letter.origin_offset, letter.value)
            if wrong:
                findings.add("dead-and-alive", f"{what} says it comes from {origin}; {wrong}")
        held = view.log((letter.topic, letter.partition))
        if letter.topic not in view.cut and held.known and held.at(letter.offset) != letter.value:
            findings.add("dead-and-alive", f"{what} is not there; the log has {held.at(letter.offset)!r}")
        if letter.attempts < 1:
            findings.add("dead-and-alive", f"{what} says that nobody has tried it")


def _redriven(view: View, findings: Findings) -> None:
    """A dead letter is redriven once: the step that publishes it takes it off the list."""
    lives: dict[tuple[str, str, int, int, int], list[Redriven]] = defaultdict(list)
    for record in view.of(Redriven):
        origin = record.origin_topic, record.origin_partition, record.origin_offset
        lives[record.group, *origin, record.redrives].append(record)
    for (group, topic, partition, offset, _), records in lives.items():
        for again in records[1:]:
            findings.add(
                "dead-and-alive",
                f"group {group} at {topic}/{partition}: offset {offset} was redriven twice, to"
                f" {_spot(records[0])}"
                f" and {_spot(again)}",
            )
