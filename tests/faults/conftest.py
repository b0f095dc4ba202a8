"""Fixtures of the fault tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .stock import Lab


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Lab]:
    """Stock nodes on a virtual clock, closed at the end of the test."""
    made = Lab(monkeypatch, tmp_path)
    yield made
    made.close()
