"""What a power cut leaves of one file, against a naive model of all versions of each page."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.chaos.disk.content import PAGE, Content


def _content(path: Path) -> Content:
    return Content(os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC))


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Content]:
    content = _content(tmp_path / "object")
    yield content
    content.close()


def test_what_was_not_flushed_is_gone(file: Content) -> None:
    file.write(0, b"a" * PAGE)
    file.end_flush(file.begin_flush())
    file.write(0, b"b" * 10)
    file.write(PAGE, b"c" * PAGE)
    assert file.power_cut(Random(1), keep=0.0) == 2
    assert file.read(0, 3 * PAGE) == b"a" * PAGE


def test_everything_may_have_reached_the_disk(file: Content) -> None:
    file.write(0, b"a" * (2 * PAGE))
    assert file.power_cut(Random(1), keep=1.0) == 0
    assert file.read(0, 3 * PAGE) == b"a" * (2 * PAGE)


def test_a_write_during_a_flush_is_not_part_of_it(file: Content) -> None:
    file.write(0, b"a" * PAGE)
    flush = file.begin_flush()
    file.write(0, b"b" * PAGE)
    file.end_flush(flush)
    file.power_cut(Random(1), keep=0.0)
    assert file.read(0, PAGE) == b"a" * PAGE


def test_a_flush_that_has_not_ended_makes_nothing_durable(file: Content) -> None:
    file.write(0, b"a" * PAGE)
    file.end_flush(file.begin_flush())
    file.write(0, b"b" * PAGE)
    file.begin_flush()
    file.write(0, b"c" * PAGE)
    file.power_cut(Random(1), keep=0.0)
    assert file.read(0, PAGE) == b"a" * PAGE


def test_after_a_failed_fsync_the_next_one_succeeds_falsely(file: Content) -> None:
    file.write(0, b"a" * PAGE)
    file.end_flush(file.begin_flush())
    file.write(0, b"b" * PAGE)
    file.fail_flush(file.begin_flush())
    file.end_flush(file.begin_flush())
    assert file.read(0, PAGE) == b"b" * PAGE
    file.power_cut(Random(1), keep=0.0)
    assert file.read(0, PAGE) == b"a" * PAGE


def test_a_page_written_again_after_a_failed_fsync_is_durable_with_the_next(file: Content) -> None:
    file.write(0, b"a" * PAGE)
    file.fail_flush(file.begin_flush())
    file.write(0, b"b" * PAGE)
    file.end_flush(file.begin_flush())
    file.power_cut(Random(1), keep=0.0)
    assert file.read(0, PAGE) == b"b" * PAGE


def test_a_durable_write_takes_no_other_page_with_it(file: Content) -> None:
    file.write(0, b"a" * PAGE)
    file.write(PAGE, b"m" * 100)
    file.end_flush(file.begin_flush(only=[1]))
    file.power_cut(Random(1), keep=0.0)
    assert file.read(0, 2 * PAGE) == b"\0" * PAGE + b"m" * 100


@pytest.mark.parametrize("keep", [0.0, 0.5])
def test_a_truncation_is_undone_whole(file: Content, keep: float) -> None:
    file.write(0, b"a" * (3 * PAGE))
    file.end_flush(file.begin_flush())
    file.truncate(0)
    file.power_cut(Random(3), keep)
    assert file.read(0, 3 * PAGE) in (b"", b"a" * (3 * PAGE))


Step = tuple[str, int]
_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(0, 5)),
        st.tuples(st.sampled_from(["begin", "end", "fail"]), st.just(0)),
    ),
    max_size=30,
)


@given(steps=_STEPS, seed=st.integers(0, 99), keep=st.sampled_from([0.0, 0.3, 0.7, 1.0]))
def test_each_page_is_one_of_its_versions_since_it_was_durable(
    tmp_path_factory: pytest.TempPathFactory, steps: list[Step], seed: int, keep: float
) -> None:
    content = _content(tmp_path_factory.getbasetemp() / "model")
    versions: dict[int, list[int]] = {page: [0] for page in range(6)}
    durable_from: dict[int, int] = dict.fromkeys(range(6), 0)
    dirty: set[int] = set()
    flushes: list[tuple[object, dict[int, int]]] = []
    for count, (what, page) in enumerate(steps, 1):
        if what == "write":
            content.write(page * PAGE, bytes([count]) * PAGE)
            versions[page].append(count)
            dirty.add(page)
        elif what == "begin" and not flushes:
            flushes.append((content.begin_flush(), {p: len(versions[p]) - 1 for p in dirty}))
            dirty.clear()
        elif flushes and what in ("end", "fail"):
            flush, reached = flushes.pop()
            if what == "end":
                content.end_flush(flush)  # type: ignore[arg-type]
                durable_from.update(reached)
            else:
                content.fail_flush(flush)  # type: ignore[arg-type]
    content.power_cut(Random(seed), keep)
    stored = content.read(0, 6 * PAGE).ljust(6 * PAGE, b"\0")
    for page, written in versions.items():
        found = stored[page * PAGE : (page + 1) * PAGE]
        assert found == bytes([found[0]]) * PAGE, "a page is never torn in itself"
        # A lost size takes what lies beyond the durable end with it.
        allowed = [*written[durable_from[page] :], *([0] if not durable_from[page] else [])]
        assert found[0] in allowed
    content.close()
