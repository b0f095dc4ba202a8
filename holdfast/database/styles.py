"""Statements here have parameters as ``:name``; drivers want their own."""

from __future__ import annotations

import re


def for_psycopg(text: str) -> str:
    """``%(name)s``, as psycopg has them."""
    return re.sub(r":(\w+)", r"%(\1)s", text)
