"""Names after a power cut."""

from __future__ import annotations

import stat
from random import Random

from holdfast.chaos.disk.tree import Node


def _directory() -> Node:
    return Node(1, stat.S_IFDIR)


def test_a_name_is_durable_with_its_directory() -> None:
    root, file = _directory(), Node(2, stat.S_IFREG)
    root.change({"a": file})
    root.synced(root.steps)
    root.change({"b": file})
    root.power_cut(Random(1), keep=0.0)
    assert root.names == {"a": file}


def test_a_rename_happens_whole_or_not_at_all() -> None:
    for seed in range(20):
        root, old, new = _directory(), Node(2, stat.S_IFREG), Node(3, stat.S_IFREG)
        root.change({"CURRENT": old})
        root.change({"CURRENT.new": new})
        root.synced(root.steps)
        root.change({"CURRENT.new": None, "CURRENT": new})
        root.power_cut(Random(seed), keep=0.5)
        assert root.names in ({"CURRENT": old, "CURRENT.new": new}, {"CURRENT": new})


def test_steps_survive_in_their_order() -> None:
    for seed in range(20):
        root = _directory()
        for number in range(5):
            root.change({str(number): Node(2 + number, stat.S_IFREG)})
        root.power_cut(Random(seed), keep=0.6)
        assert list(root.names) == [str(n) for n in range(len(root.names))]


def test_what_a_power_cut_could_bring_back_is_kept() -> None:
    root, file = _directory(), Node(2, stat.S_IFREG)
    root.change({"a": file})
    root.synced(1)
    root.change({"a": None})
    assert file in root.kept()
    assert file not in root.below()
    root.synced(1)
    assert file not in root.kept()
