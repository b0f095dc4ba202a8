"""What the documents show works, and prints what they say it prints."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

#: A fenced block is marked by the comment in the line before it: `python` for a complete program, `shell`
#: for commands, `output` for what the block before prints, exactly.
_MARKED = re.compile(r"^<!-- test: (?P<kind>\w+) -->\n```\w*\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\((?!https?://|#)([^)#]+)")


@dataclass(frozen=True, slots=True)
class Snippet:
    """One block; ``line`` is where its code starts, ``output`` what it must print (None: anything)."""

    kind: str
    code: str
    line: int
    output: str | None = None


def snippets(document: Path) -> list[Snippet]:
    """The marked blocks of a document, in order."""
    text = document.read_text()
    found: list[Snippet] = []
    for match in _MARKED.finditer(text):
        if match["kind"] == "output":
            last = found.pop()
            found.append(Snippet(last.kind, last.code, last.line, match["code"]))
        else:
            found.append(Snippet(match["kind"], match["code"], text.count("\n", 0, match.start("code")) + 1))
    return found


@pytest.mark.parametrize("document", [d for d in DOCUMENTS if snippets(d)], ids=lambda d: d.name)
def test_snippets_run(document: Path, tmp_path: Path, broker: str, environment: dict[str, str]) -> None:
    for snippet in snippets(document):
        code = snippet.code.replace("127.0.0.1:7450", broker)
        command = {
            "python": [sys.executable, "-c", code],
            "shell": ["bash", "-euo", "pipefail", "-c", code],
        }[snippet.kind]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        where = f"{document.name}:{snippet.line}"
        assert done.returncode == 0, f"{where}: exit status {done.returncode}\n{done.stdout}\n{done.stderr}"
        if snippet.output is not None:
            assert done.stdout == snippet.output, where


def test_the_program_on_the_first_screen_is_short() -> None:
    program, *_ = snippets(ROOT / "README.md")
    assert program.kind == "python"
    assert sum(1 for line in program.code.splitlines() if line.strip()) <= 10


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda d: d.name)
def test_links_lead_somewhere(document: Path) -> None:
    for target in _LINK.findall(document.read_text()):
        assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_settings_table_is_up_to_date() -> None:
    maker = runpy.run_path(str(ROOT / "scripts" / "settings_table.py"))
    text = maker["DOCUMENT"].read_text()
    kept = text.partition(maker["BEGIN"])[2].partition(maker["END"])[0]
    assert kept == maker["table"](), "run: python scripts/settings_table.py"
    assert "|  |" not in kept, "a setting lacks a meaning"
