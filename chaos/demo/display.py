"""The demo's live display: rich on a terminal, a plain line a second elsewhere."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table


@dataclass
class State:
    """What is shown."""

    step: str = "starting"
    total: int = 0
    done: int = 0
    rate: float = 0.0  # records per second, over the last refresh
    leader: str = "-"
    term: int = 0
    commit_index: int = 0


class Display:
    """Shows ``state`` while used as a context manager; ``refresh`` after changes."""

    def __init__(self, title: str) -> None:
        self.state = State()
        self._title = title
        self._console = Console(file=sys.stderr)
        self._live: Live | None = None
        if self._console.is_terminal:
            self._live = Live(self._render(), console=self._console, refresh_per_second=8)
        self._last_line = 0.0
        self._rate_at = time.monotonic()
        self._rate_done = 0

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.update(self._render(), refresh=True)
            self._live.stop()

    def say(self, text: str) -> None:
        """A line that stays."""
        self._console.print(text, highlight=False, soft_wrap=True)

    def step(self, name: str, total: int = 0) -> None:
        """Begin a step of ``total`` records (0: not counted)."""
        self.state.step, self.state.total, self.state.done, self.state.rate = name, total, 0, 0.0
        self._rate_at, self._rate_done = time.monotonic(), 0
        self._last_line = 0.0
        self.refresh()

    def refresh(self) -> None:
        now, state = time.monotonic(), self.state
        if now - self._rate_at >= 0.5:
            state.rate = (state.done - self._rate_done) / (now - self._rate_at)
            self._rate_at, self._rate_done = now, state.done
        if self._live is not None:
            self._live.update(self._render())
        elif now - self._last_line >= 1.0:
            self._last_line = now
            counted = f" {state.done:,}/{state.total:,} ({state.rate:,.0f}/s)" if state.total else ""
            self.say(
                f"demo: {state.step}{counted} leader={state.leader} term={state.term} "
                f"commit_index={state.commit_index}"
            )

    def _render(self) -> Panel:
        state = self.state
        table = Table.grid(padding=(0, 2))
        table.add_row("step", state.step)
        if state.total:
            table.add_row("records", f"{state.done:,} of {state.total:,}")
            table.add_row("", ProgressBar(total=state.total, completed=state.done, width=50))
            table.add_row("throughput", f"{state.rate:,.0f} records/s")
        table.add_row("leader", f"{state.leader} (term {state.term})")
        table.add_row("commit index", f"{state.commit_index:,}")
        return Panel(table, title=self._title, width=72)
