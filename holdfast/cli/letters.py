"""Printing dead letters, and what became of them."""

from __future__ import annotations

import sys
from contextlib import aclosing

import holdfast
from holdfast.cli.output import note, print_json, readable, text_or_base64
from holdfast.cli.times import format_time
from holdfast.client.dead_letters import EVERY, DeadLetter, DeadLetterFilter, DiscardResult, RedriveResult
from holdfast.client.times import to_us


async def print_letters(
    bus: holdfast.Client,
    topic: str,
    chosen: DeadLetterFilter,
    limit: int | None,
    *,
    values: bool,
    as_json: bool,
) -> None:
    """One line each, as they come."""
    count = 0
    async with aclosing(bus.dead_letters(topic, chosen, limit=limit, brief=not values)) as letters:
        async for letter in letters:
            count += 1
            if as_json:
                print_json(as_dict(letter, values=values))
            else:
                print(_line(letter, values=values))
    if not count and not as_json:
        fit = "" if chosen == EVERY else " that fit"
        note(f"no dead letters in {topic}{fit}")


async def run_redrive(
    bus: holdfast.Client,
    topic: str,
    chosen: DeadLetterFilter,
    *,
    to: str | None,
    rate: int | None,
    limit: int | None,
    force: bool,
    dry_run: bool,
    as_json: bool,
) -> bool:
    """Redrive and say what became of it; False when some were refused and none went."""
    show = None if as_json or dry_run else _Counter("redriven")
    result = await bus.redrive_dead_letters(
        topic,
        chosen,
        to=to,
        rate=rate,
        limit=limit,
        force=force,
        dry_run=dry_run,
        on_progress=None if show is None else lambda now: show(now.redriven),
    )
    if as_json:
        print_json(_redrive_dict(result, dry_run=dry_run))
    elif dry_run:
        _print_sample(result.sample)
        print(f"would redrive {result.matched - result.refused} of {result.matched} dead letters of {topic}")
    else:
        print(f"redriven {result.redriven} of {result.matched} dead letters of {topic}")
    if result.refused and not as_json:
        why = "" if result.last_error is None else f"; the last one: {result.last_error.message}"
        note(f"{result.refused} refused{why}")
    went = result.matched - result.refused if dry_run else result.redriven
    return bool(went) or not result.refused


async def run_discard(
    bus: holdfast.Client,
    topic: str,
    chosen: DeadLetterFilter,
    *,
    limit: int | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Discard and say what became of it."""
    show = None if as_json or dry_run else _Counter("discarded")
    result = await bus.discard_dead_letters(
        topic,
        chosen,
        limit=limit,
        dry_run=dry_run,
        on_progress=None if show is None else lambda now: show(now.discarded),
    )
    if as_json:
        print_json(_discard_dict(result, dry_run=dry_run))
    elif dry_run:
        _print_sample(result.sample)
        print(f"would discard {result.matched} dead letters of {topic}")
    else:
        print(f"discarded {result.discarded} dead letters of {topic}")


def as_dict(letter: DeadLetter, *, values: bool) -> dict[str, object]:
    """A dead letter for programs."""
    row: dict[str, object] = {
        "topic": letter.topic,
        "partition": letter.partition,
        "offset": letter.offset,
        "group": letter.group,
        "origin": {
            "topic": letter.origin_topic,
            "partition": letter.origin_partition,
            "offset": letter.origin_offset,
        },
        "attempts": letter.attempts,
        "errors": [{"time": format_time(to_us(at)), "error": text} for at, text in letter.errors],
        "first_failed_at": format_time(to_us(letter.first_failed_at)),
        "dead_at": format_time(to_us(letter.dead_at)),
        "redrives": letter.redrives,
    }
    if values:
        row |= {"key": None} if letter.key is None else text_or_base64("key", letter.key)
        row |= text_or_base64("value", letter.value)
    return row


def _line(letter: DeadLetter, *, values: bool) -> str:
    origin = f"{letter.origin_topic or '-'}:{letter.origin_partition}:{letter.origin_offset}"
    error = readable(letter.errors[-1][1].encode()) if letter.errors else "-"
    cells = [
        f"{letter.partition}:{letter.offset}",
        letter.group or "-",
        origin,
        str(letter.attempts),
        format_time(to_us(letter.dead_at)),
        error,
    ]
    if values:
        cells += ["-" if letter.key is None else readable(letter.key), readable(letter.value)]
    return "\t".join(cells)


def _print_sample(sample: tuple[DeadLetter, ...]) -> None:
    for letter in sample:
        print(_line(letter, values=False))


def _redrive_dict(result: RedriveResult, *, dry_run: bool) -> dict[str, object]:
    found: dict[str, object] = {
        "matched": result.matched,
        "redriven": result.redriven,
        "refused": result.refused,
    }
    if result.last_error is not None:
        found["last_error"] = {"reason": result.last_error.reason, "message": result.last_error.message}
    if dry_run:
        found["sample"] = [as_dict(letter, values=False) for letter in result.sample]
    return found


def _discard_dict(result: DiscardResult, *, dry_run: bool) -> dict[str, object]:
    found: dict[str, object] = {"matched": result.matched, "discarded": result.discarded}
    if dry_run:
        found["sample"] = [as_dict(letter, values=False) for letter in result.sample]
    return found


class _Counter:
    """Shows how far it has come, on a terminal."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._shown = sys.stderr.isatty()

    def __call__(self, count: int) -> None:
        if self._shown:
            print(f"\r{count:,} {self._what}", end="", file=sys.stderr, flush=True)
