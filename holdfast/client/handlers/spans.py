"""A span for each call of a handler, linked to the one that published the record."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from opentelemetry import trace
from opentelemetry.trace import Link, SpanKind, StatusCode, get_current_span

from holdfast.client.types import Record

_NOTHING: AbstractContextManager[None] = nullcontext()


class Spans:
    """Made when a runner starts: a program that has set up no tracing by then pays nothing for it."""

    def __init__(self, group: str) -> None:
        self._group = group
        provider = trace.get_tracer_provider()
        wanted = not isinstance(provider, trace.ProxyTracerProvider | trace.NoOpTracerProvider)
        self._tracer = provider.get_tracer("holdfast") if wanted else None

    def around(self, record: Record) -> AbstractContextManager[None]:
        """The span of a record's call; current within it."""
        return _NOTHING if self._tracer is None else self._span(self._tracer, record)

    @contextmanager
    def _span(self, tracer: trace.Tracer, record: Record) -> Iterator[None]:
        published = record.trace_context()
        links = [] if published is None else [Link(get_current_span(published).get_span_context())]
        with tracer.start_as_current_span(
            f"process {record.topic}",
            kind=SpanKind.CONSUMER,
            links=links,
            attributes={
                "messaging.system": "holdfast",
                "messaging.operation.type": "process",
                "messaging.destination.name": record.topic,
                "messaging.destination.partition.id": str(record.partition),
                "messaging.consumer.group.name": self._group,
                "messaging.holdfast.offset": record.offset,
                "messaging.holdfast.attempt": record.attempt,
            },
            # Messages of exceptions may quote the record.
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                yield
            except BaseException as error:
                span.set_status(StatusCode.ERROR, type(error).__name__)
                span.set_attribute("error.type", type(error).__qualname__)
                raise
