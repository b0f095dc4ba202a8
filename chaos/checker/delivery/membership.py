"""Who owns what: nothing moves without need, and who has lost a partition settles nothing in it."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict

from holdfast.chaos.checker.delivery.course import Group
from holdfast.chaos.checker.delivery_events import Reshaped
from holdfast.chaos.checker.history import Outcome
from holdfast.chaos.checker.promises import Findings
from holdfast.chaos.checker.view import Place, View


def check(view: View, groups: list[Group], findings: Findings) -> None:
    """Shapes of each group against each other, then what was told against the fences."""
    for group in groups:
        _shapes(group, findings)
    _Fences(view, groups).check(view, groups, findings)


def _shapes(group: Group, findings: Findings) -> None:
    by_generation: dict[int, Reshaped] = {}
    for shape in group.shapes:
        first = by_generation.setdefault(shape.generation, shape)
        if (sorted(first.members), _owners(first)) != (sorted(shape.members), _owners(shape)):
            findings.add(
                "group-replicas",
                f"group {group.name}: {first.node or 'one node'} and {shape.node or 'another'} differ on who"
                " owns"
                f" what in generation {shape.generation}",
                shape.at,
            )
    for shape in by_generation.values():
        before = by_generation.get(shape.previous)
        if before is not None:
            _moves(group, before, shape, findings)


def _owners(shape: Reshaped) -> dict[Place, str]:
    """Partitions that somebody owns who is a member."""
    members = set(shape.members)
    return {(o.topic, o.partition): o.member for o in shape.owners if o.member in members}


def _moves(group: Group, before: Reshaped, after: Reshaped, findings: Findings) -> None:
    """*needless-move*: from one generation to the next only those partitions move that must.

    So many that everybody comes to have his share, and no more, whatever came
    together: every move away from a member that stays brings the group that much
    nearer to balance. With balance and the same members nothing moves at all.
    """
    members = set(after.members)
    had = {place: member for place, member in _owners(before).items() if member in members}
    has = _owners(after)
    places = {(owner.topic, owner.partition) for owner in after.owners}
    moved = sorted(place for place, member in had.items() if place in places and has.get(place) != member)
    needed = surplus(members, places, had)
    left = surplus(members, places, has)
    if len(moved) + left <= needed or not moved:
        return
    topic, partition = moved[0]
    findings.add(
        "needless-move",
        f"group {group.name}: generation {after.generation} takes {len(moved)} partitions from members that"
        " stay,"
        f" first {topic}/{partition} from {had[moved[0]]}, and leaves {left} to move; {needed} had to",
        after.at,
    )


def surplus(members: set[str], places: set[Place], owners: dict[Place, str]) -> int:
    """How many partitions have to leave their owner before everybody has the same number, or one more.

    The larger shares go to those that have most.
    """
    if not members:
        return 0
    share, larger = divmod(len(places), len(members))
    held = Counter(member for place, member in owners.items() if place in places)
    sizes = sorted((held[member] for member in members), reverse=True)
    return sum(max(0, size - share - (number < larger)) for number, size in enumerate(sizes))


class _Fences:
    """When each partition's fence is known to have been replaced."""

    def __init__(self, view: View, groups: list[Group]) -> None:
        # (group, topic, partition) -> (when, fence), and the highest so far.
        seen: dict[tuple[str, str, int], list[tuple[float, int]]] = defaultdict(list)
        for group in groups:
            for flow in group.flows:
                for handed in flow.handed:
                    if handed.fence:
                        seen[group.name, flow.topic, flow.partition].append((handed.came, handed.fence))
            for shape in group.shapes:
                for owner in shape.owners:
                    if owner.fence:
                        seen[group.name, owner.topic, owner.partition].append((shape.at, owner.fence))
        self._times: dict[tuple[str, str, int], list[float]] = {}
        self._highest: dict[tuple[str, str, int], list[int]] = {}
        for place, known in seen.items():
            known.sort()
            highest: list[int] = []
            for _, fence in known:
                highest.append(max(fence, highest[-1]) if highest else fence)
            self._times[place] = [at for at, _ in known]
            self._highest[place] = highest

    def before(self, place: tuple[str, str, int], at: float) -> int:
        """The highest fence of which somebody knew strictly before; 0: none."""
        times = self._times.get(place, [])
        number = bisect_left(times, at)
        return self._highest[place][number - 1] if number else 0

    def check(self, view: View, groups: list[Group], findings: Findings) -> None:
        """*stale-generation*: nothing that is told under a replaced fence has an effect.

        Once the new owner has been told, the old one is a stranger there, however
        long it was frozen, and whatever it had in hand.
        """
        for group in groups:
            for flow in group.flows:
                place = group.name, flow.topic, flow.partition
                for told in flow.told:
                    newer = self.before(place, told.at) if told.fence else 0
                    if told.confirmed is not None and newer > told.fence and told.outcome != "release":
                        findings.add(
                            "stale-generation",
                            f"{flow.where}: session {told.session} told at {told.at:.3f} that offset"
                            f" {told.offset} is"
                            f" done ({told.outcome}) under fence {told.fence}; it was replaced by {newer}"
                            " before, and"
                            " it was confirmed",
                            told.at,
                        )
        for one in view.transactions.values():
            for used in one.consumed if one.outcome is Outcome.OK else ():
                place = used.group, used.topic, used.partition
                newer = self.before(place, one.started) if used.fence else 0
                if newer > used.fence:
                    findings.add(
                        "stale-generation",
                        f"group {used.group} at {used.topic}/{used.partition}: transaction {one.id} was"
                        " begun at"
                        f" {one.started:.3f} under fence {used.fence}, which {newer} had replaced, and it"
                        " was done",
                        one.started,
                    )
