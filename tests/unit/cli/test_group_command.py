"""What ``holdfast group`` refuses before it asks a broker."""

from __future__ import annotations

import pytest

from holdfast.cli.run import USAGE, run


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["create", "g"], "give --topic or --pattern"),
        (["create", "g", "-t", "t", "--ordering", "strict"], "--ordering"),
        (["create", "g", "-t", "t", "--backoff", "soon"], "'soon' is no duration"),
        (["create", "g", "-t", "t", "--start", "7"], "a group begins at a time"),
        (["update", "g"], "nothing to change"),
        (["seek", "g", "-t", "t", "--to", "noon", "--yes"], "'noon' is not 'earliest'"),
        (["restore", "g", "--topic", "t"], "name records by --topic, --partition and --offset"),
        (["restore", "g", "--all", "--offset", "3"], "name records by --topic, --partition and --offset"),
        (["restore", "g", "--all", "--discard"], "this settles all parked records of group g unhandled"),
        (["seek", "g", "-t", "t", "--to", "1"], "this moves group g to 1 in t, and there is no terminal"),
        (["delete", "g"], "this deletes group g with its positions, and there is no terminal"),
        (["create", "g", "-t", "t", "--max-lease", "1w"], "'1w' is no duration"),
    ],
)
def test_wrong_usage_is_one_clear_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["group", *arguments]) == USAGE
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.startswith("holdfast: ")
    assert len(printed.err.splitlines()) == 1
    assert printed.out == ""
