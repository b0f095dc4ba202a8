"""Whether this node remembers all it ever promised: a voter's memory of its own past.

A node that votes or confirms entries must never forget either. One that starts
on an empty store cannot know whether it had a past, so it marks itself before
it writes anything else, and the mark goes only once it is known that nothing
is missing (``cluster/raft/rejoin.py``).
"""

from __future__ import annotations

from enum import Enum

from holdfast.errors import StorageError
from holdfast.storage import journal
from holdfast.storage.port import Reader, Table, Writer

KEY = b"raft.member"


class Membership(Enum):
    """What a node knows of its past; the values are stored."""

    NEW = b"\x01"  # began on an empty store and has heard of no past
    REJOINING = b"\x02"  # began on an empty store, in a cluster that has a past
    JOINED = b"\x03"  # has forgotten nothing


def read(r: Reader) -> Membership | None:
    """The mark; None in a store that was never marked and never written to either.

    Stores of earlier versions have no mark. One with a term or a log has joined.

    Raises:
        StorageError: the mark is damaged.
    """
    value = r.get(Table.META, KEY)
    if value is not None:
        try:
            return Membership(value)
        except ValueError:
            raise StorageError(f"the membership mark is damaged: {value.hex()}") from None
    meta = journal.read_meta(r)
    blank = meta.term == 0 and meta.last_index == meta.base_index == journal.FIRST_BASE_INDEX
    return None if blank else Membership.JOINED


def write(w: Writer, membership: Membership) -> None:
    """Mark the store, in the open transaction."""
    w.put(Table.META, KEY, membership.value)


def carry(r: Reader, w: Writer) -> None:
    """Take the mark over to another environment of the same node."""
    value = r.get(Table.META, KEY)
    if value is not None:
        w.put(Table.META, KEY, value)
