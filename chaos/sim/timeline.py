"""What happened in a run, for people: times, faults, roles."""

from __future__ import annotations

from collections.abc import Callable

_WIDTH = 12


class Timeline:
    """Notes with the time from the beginning of the run."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._began = now()
        self.notes: list[tuple[float, str, str]] = []

    def note(self, kind: str, what: str) -> None:
        self.notes.append((self._now() - self._began, kind, what))

    def render(self, last: int = 200) -> str:
        """The notes, one a line; at most the last ``last``."""
        lines = [f"{at:9.4f} s  {kind:<{_WIDTH}} {what}" for at, kind, what in self.notes[-last:]]
        if len(self.notes) > last:
            lines.insert(0, f"({len(self.notes) - last} earlier lines are left out)")
        return "\n".join(lines)
