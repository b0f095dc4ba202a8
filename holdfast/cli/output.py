"""What commands print: tables and text for people, JSON for programs.

Standard output carries results only; progress and notes go to standard error.
"""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def print_json(value: Mapping[str, Any]) -> None:
    """One object on one line."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n")


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table; columns whose cells are all numbers are aligned right."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    cells = list(rows)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for position, name in enumerate(columns):
        numeric = bool(cells) and all(isinstance(row[position], int | float) for row in cells)
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in cells:
        table.add_row(*(_cell(value, Text) for value in row))
    # As wide as it is: a line that the terminal wraps can be read, a column folded to three letters cannot.
    console = Console(width=400)
    with console.capture() as rendered:
        console.print(table)
    for line in rendered.get().splitlines():
        print(line.rstrip())


def note(text: str) -> None:
    """A line for the person at the terminal."""
    print(text, file=sys.stderr, flush=True)


def text_or_base64(name: str, data: bytes) -> dict[str, str]:
    """``{name: text}``, or ``{name_base64: …}`` for bytes that are not UTF-8."""
    try:
        return {name: data.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(data).decode()}


def readable(data: bytes) -> str:
    """Bytes as text for a terminal: control characters and bad UTF-8 are escaped."""
    text = data.decode("utf-8", "backslashreplace")
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\t" else c.encode("unicode_escape").decode() for c in text)


def human_bytes(count: int) -> str:
    """``1536`` as ``1.5 KiB``."""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def human_duration(milliseconds: int) -> str:
    """``604800000`` as ``7d``: in the largest unit that leaves no fraction."""
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)):
        if milliseconds % size == 0:
            return f"{milliseconds // size}{unit}"
    return f"{milliseconds}ms"


def _cell(value: object, text: Any) -> Any:
    return text(f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value))
