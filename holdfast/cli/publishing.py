"""Publishing a stream of events: a bounded window of unanswered ones, a progress bar, a summary."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import typer

import holdfast
from holdfast.cli.feed import Feed
from holdfast.cli.inputs import Event, Fields, InputFormat, format_of, from_stream, from_values
from holdfast.cli.output import note, print_json
from holdfast.errors import HoldfastError

if TYPE_CHECKING:
    from rich.progress import Progress

#: Input shorter than this many seconds gets no progress bar.
_PATIENCE = 0.5


@dataclass(slots=True)
class Source:
    """Where events come from; ``bytes_read`` grows as they are read, up to ``total`` when that is known."""

    events: Iterator[Event]
    name: str = ""
    total: int | None = None
    bytes_read: int = 0

    def advance(self, count: int) -> None:
        self.bytes_read += count


@dataclass(slots=True)
class Published:
    """What has been acknowledged: per partition its first and last offset and how many.

    ``repeats``: how many more had been stored before under their idempotency keys; None: without keys.
    """

    topic: str
    count: int = 0
    partitions: dict[int, list[int]] = field(default_factory=dict)
    repeats: int | None = None

    def add(self, summary: holdfast.PublishSummary) -> None:
        for ack in summary.acks:
            self._add(ack.partition, ack.base_offset, ack.count)

    def add_keyed(self, acks: Iterable[holdfast.Ack]) -> None:
        self.repeats = self.repeats or 0
        for ack in acks:
            if ack.duplicate:
                self.repeats += 1
            else:
                self._add(ack.partition, ack.offset, 1)

    def _add(self, partition: int, first: int, count: int) -> None:
        last = first + count - 1
        self.count += count
        seen = self.partitions.setdefault(partition, [first, last, 0])
        seen[0], seen[1], seen[2] = min(seen[0], first), max(seen[1], last), seen[2] + count

    def show(self, *, as_json: bool) -> None:
        parts = sorted(self.partitions.items())
        if as_json:
            rows = [
                {"partition": number, "first_offset": first, "last_offset": last, "count": count}
                for number, (first, last, count) in parts
            ]
            repeats = {} if self.repeats is None else {"repeated": self.repeats}
            print_json({"topic": self.topic, "published": self.count, **repeats, "partitions": rows})
            return
        before = "" if self.repeats is None else f"; {_records(self.repeats)} had been published before"
        print(f"published {_records(self.count)} to {self.topic}{before}")
        for number, (first, last, _) in parts:
            print(
                f"  partition {number}: "
                + (f"offset {first}" if first == last else f"offsets {first} to {last}")
            )


@contextmanager
def open_source(
    values: list[str], file: Path | None, kind: InputFormat | None, fields: Fields
) -> Iterator[Source]:
    """The one source that the arguments name.

    Raises:
        typer.BadParameter: none is named, or several.
        InvalidArgumentError: its format is not known.
    """
    from_stdin = values == ["-"] or (not values and file is None and not sys.stdin.isatty())
    if file is not None:
        if values:
            raise typer.BadParameter("give values or --file, not both.", param_hint="'--file'")
        kind = kind or format_of(file)
        _check_lines(kind, fields)
        with file.open("rb") as stream:
            source = Source(iter(()), file.name, file.stat().st_size if file.is_file() else None)
            source.events = from_stream(stream, kind, fields, str(file), source.advance)
            yield source
    elif from_stdin:
        # A reader of our own: the reading thread may still wait for input when the interpreter ends.
        _check_lines(kind or InputFormat.LINES, fields)
        stream = open(0, "rb", closefd=False)  # noqa: SIM115  (closing would wait for that thread)
        source = Source(iter(()), "standard input")
        source.events = from_stream(stream, kind or InputFormat.LINES, fields, source.name, source.advance)
        yield source
    elif values:
        if kind is not None:
            raise typer.BadParameter("it is for --file and standard input.", param_hint="'--format'")
        if fields.idempotency_key is not None and len(values) > 1:
            raise typer.BadParameter(
                f"one key for {len(values)} values: all but the first would pass for repeats.",
                param_hint="'--idempotency-key'",
            )
        yield Source(from_values(values, fields))
    else:
        raise typer.BadParameter("nothing to publish: give values, --file FILE, or pipe records in.")


def _check_lines(kind: InputFormat, fields: Fields) -> None:
    if kind is InputFormat.LINES and fields.idempotency_key is not None:
        raise typer.BadParameter(
            "lines have no fields to take it from: use --format ndjson or csv.",
            param_hint="'--idempotency-key'",
        )


async def publish_all(bus: holdfast.Client, topic: str, source: Source, timeout: float) -> Published:
    """Publish every event of the source, in order, and wait for all acknowledgements.

    Raises:
        HoldfastError: what reading or publishing raised first. Its metadata tells as ``published`` how
            many records had been acknowledged before: of the portion that failed there may be more.
    """
    published = Published(topic)
    feed = Feed(source.events)
    with _Bar(source, published) as bar:
        try:
            # One portion at a time keeps the order of keys; the next is read and parsed meanwhile.
            async for portion in feed:
                if any(event.idempotency_key is not None for event in portion):
                    published.add_keyed(await _publish_keyed(bus, topic, portion, timeout))
                    bar.update()
                    continue
                keys = [event.key for event in portion]
                times = [event.timestamp_us for event in portion if event.timestamp_us is not None]
                summary = await bus.publish_many(
                    topic,
                    [event.value for event in portion],
                    keys=keys if any(keys) else None,
                    timestamps=times or None,  # a source has times for all events or for none
                    timeout=timeout,
                )
                published.add(summary)
                bar.update()
        except HoldfastError as error:
            error.metadata["published"] = str(published.count)
            raise
        except asyncio.CancelledError:
            done = f"at least {_records(published.count)}" if published.count else "nothing"
            note(f"holdfast: interrupted; {done} had been acknowledged")
            raise
        finally:
            feed.close()
    return published


async def _publish_keyed(
    bus: holdfast.Client, topic: str, portion: Iterable[Event], timeout: float
) -> list[holdfast.Ack]:
    return await asyncio.gather(
        *[
            bus.publish(
                topic,
                event.value,
                event.key,
                timestamp=event.timestamp_us,
                timeout=timeout,
                idempotency_key=event.idempotency_key,
            )
            for event in portion
        ]
    )


def _records(count: int) -> str:
    return f"{count:,} {'record' if count == 1 else 'records'}"


class _Bar:
    """A progress bar on standard error: on a terminal, for input that takes a while."""

    def __init__(self, source: Source, published: Published) -> None:
        self._source = source
        self._published = published
        self._started = time.monotonic()
        self._wanted = bool(source.name) and sys.stderr.isatty()
        self._progress: Progress | None = None
        self._task: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self.update()
            self._progress.stop()

    def update(self) -> None:
        if not self._wanted or time.monotonic() - self._started < _PATIENCE:
            return
        if self._progress is None:
            self._start()
        elif self._task is not None:
            count = self._published.count
            rate = count / (time.monotonic() - self._started)
            self._progress.update(
                self._task, completed=self._source.bytes_read, count=f"{count:,}", rate=f"{rate:,.0f}"
            )

    def _start(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[count]} records, {task.fields[rate]}/s"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self._progress.start()
        self._task = self._progress.add_task(self._source.name, total=self._source.total, count="0", rate="0")
