"""Groups as messages, from their rows: what operations give back, and what the Groups service shows."""

from __future__ import annotations

from google.protobuf.message import DecodeError

from holdfast.cluster import group_definition
from holdfast.cluster.group_definition import Definition
from holdfast.errors import StorageError, UnknownGroupError
from holdfast.storage import flow_keys, flows, groups, members, retries, topics
from holdfast.storage.flows import FlowRow
from holdfast.storage.groups import GroupRow
from holdfast.storage.port import Reader
from holdfast.v1 import groups_pb2, log_pb2


def group_message(
    reader: Reader, name: str, *, members: bool = True, partitions: bool = True
) -> groups_pb2.Group:
    """A group as its rows have it.

    Args:
        members: with its members, by id.
        partitions: with what it holds of partitions, by topic and number; what
            it still has of topics that are gone is left out.

    Raises:
        UnknownGroupError: there is none of this name.
    """
    row = groups.read(reader, name)
    if row is None:
        raise unknown_group(name)
    about = stored(row)
    found = groups_pb2.Group(
        name=name,
        generation=row.generation,
        # What only ever committed offsets was made by a subscription, too.
        implicit=about.implicit or not about.HasField("definition"),
        created_at_us=about.created_at_us,
    )
    if about.HasField("definition"):
        found.definition.CopyFrom(about.definition)
    if members:
        _add_members(reader, found)
    if partitions:
        _add_partitions(reader, found)
    return found


def stored(row: GroupRow) -> log_pb2.GroupRow:
    """What a group's row has behind its counts; empty when the group was never defined.

    Raises:
        StorageError: it does not parse.
    """
    try:
        return log_pb2.GroupRow.FromString(row.definition)
    except DecodeError as error:
        raise StorageError(f"the definition of a group does not parse: {error}") from error


def definition_of(row: GroupRow) -> Definition | None:
    """A group's definition; None when it was never defined.

    Raises:
        StorageError: it does not parse.
    """
    about = stored(row)
    return group_definition.check(about.definition) if about.HasField("definition") else None


def unknown_group(name: str) -> UnknownGroupError:
    shown = name if len(name) <= 64 else name[:64] + "..."
    return UnknownGroupError(
        f"no group {shown!r}; a group is made by its first subscription, or with `holdfast group create`",
        metadata={"group": shown},
    )


def _add_members(reader: Reader, found: groups_pb2.Group) -> None:
    for member, row in members.scan(reader, found.name):
        found.members.add(
            id=member, name=row.name, fixed=row.fixed, grace_ms=row.grace_ms, joined_at_us=row.joined_at_us
        )


def _add_partitions(reader: Reader, found: groups_pb2.Group) -> None:
    name = found.name
    floors = {(each.topic_id, each.partition): each.offset for each in groups.offsets(reader, name)}
    rows = {(topic_id, partition): row for topic_id, partition, row in flows.scan(reader, name)}
    living = set(members.ids(reader, name))
    names: dict[int, str | None] = {}
    places: list[tuple[str, tuple[int, int], int, FlowRow]] = []
    for topic_id, partition in sorted(floors.keys() | rows.keys()):
        if topic_id not in names:
            topic = topics.read(reader, topic_id)
            names[topic_id] = None if topic is None else topic.name
        topic_name = names[topic_id]
        if topic_name is not None:
            key = (topic_id, partition)
            places.append((topic_name, key, floors.get(key, 0), rows.get(key, flows.EMPTY)))
    places.sort(key=lambda place: place[:2])
    for topic_name, key, floor, row in places:
        found.partitions.add(
            topic=topic_name,
            partition=key[1],
            floor=floor,
            settled_above=row.settled_above,
            retrying=_waiting(reader, name, key, floor, row),
            # A member that has left owns nothing, whatever the row still says.
            owner=row.owner if row.owner in living else "",
            fence=row.fence,
        )


def _waiting(reader: Reader, group: str, key: tuple[int, int], floor: int, row: FlowRow) -> int:
    """Records that wait; rows that a bounded step has left below the floor are none."""
    if not row.retrying:
        return 0
    left = retries.offsets(reader, flow_keys.flow_key(group, *key), 0, floor)
    return max(row.retrying - sum(1 for _ in left), 0)
