"""Names: directories as they are, and as a power cut would leave them.

Each change of a directory (create, rename, remove) is one step. Steps become
durable, in order, when the directory is fsynced; after a power cut some first
part of the others is there too, as a journal on disk would have it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from random import Random

from holdfast.chaos.disk.content import Content


class Node:
    """A file or a directory, whatever its names."""

    def __init__(self, number: int, mode: int, content: Content | None = None) -> None:
        self.number = number
        self.mode = mode
        #: None: a directory.
        self.content = content
        self.names: dict[str, Node] = {}
        self.modified = 0.0
        #: Open handles.
        self.opens = 0
        self._durable: dict[str, Node] = {}
        self._steps: list[Mapping[str, Node | None]] = []

    @property
    def is_directory(self) -> bool:
        return self.content is None

    @property
    def steps(self) -> int:
        """Changes of this directory that are not durable."""
        return len(self._steps)

    def change(self, step: Mapping[str, Node | None]) -> None:
        """Give names to nodes, or take them away (None), all at once."""
        _apply(self.names, step)
        self._steps.append(step)

    def synced(self, steps: int) -> None:
        """An fsync of this directory that began after ``steps`` changes is done."""
        for step in self._steps[:steps]:
            _apply(self._durable, step)
        del self._steps[:steps]

    def power_cut(self, rng: Random, keep: float) -> None:
        kept = 0
        while kept < len(self._steps) and rng.random() < keep:
            kept += 1
        self.synced(kept)
        self._steps = []
        self.names = dict(self._durable)

    def settle(self) -> None:
        self.synced(len(self._steps))

    def below(self) -> Iterator[Node]:
        """This node and all that can be reached from it by name."""
        yield self
        for node in self.names.values():
            yield from node.below()

    def kept(self) -> Iterator[Node]:
        """All that can be reached from it now, or could after some power cut."""
        yield self
        seen = [*self.names.values(), *self._durable.values()]
        seen += [node for step in self._steps for node in step.values() if node is not None]
        for node in seen:
            yield from node.kept()


def _apply(names: dict[str, Node], step: Mapping[str, Node | None]) -> None:
    for name, node in step.items():
        if node is None:
            names.pop(name, None)
        else:
            names[name] = node
