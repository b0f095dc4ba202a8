"""Events to spans, made after the fact from measured durations.

A log entry serves many publishes, so it has a trace of its own (queue,
replicate, apply under "holdfast.entry"); a publish span names the entry's log
index, and continues the caller's trace when the caller sent one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from holdfast.cluster import events as engine
from holdfast.cluster.delivery import events as delivery
from holdfast.rpc import events as rpc

Handler = Callable[[Any], None]
_NS = 1_000_000_000


def handlers(tracer: Tracer) -> dict[type, Handler]:
    """A span-making handler per event type."""
    propagator = TraceContextTextMapPropagator()

    def span(name: str, start_ns: int, end_ns: int, attributes: dict[str, Any], **more: Any) -> Span:
        made = tracer.start_span(name, start_time=start_ns, attributes=attributes, **more)
        made.end(end_time=end_ns)
        return made

    def on_publish(event: rpc.PublishHandled) -> None:
        end = time.time_ns()
        context = propagator.extract({"traceparent": event.traceparent}) if event.traceparent else None
        attributes: dict[str, Any] = {
            "messaging.system": "holdfast",
            "messaging.destination.name": event.topic,
            "messaging.batch.message_count": event.records,
            "holdfast.log_index": event.log_index,
        }
        made = tracer.start_span(
            "holdfast.publish",
            context=context,
            kind=SpanKind.SERVER,
            start_time=end - int(event.seconds * _NS),
            attributes=attributes,
        )
        if event.reason:
            made.set_status(Status(StatusCode.ERROR, event.reason))
        made.end(end_time=end)

    def on_entry(event: engine.ProposalTimings) -> None:
        end = time.time_ns()
        applied = end - int(event.apply_s * _NS)
        appended = applied - int(event.replicate_s * _NS)
        queued = appended - int(event.queued_s * _NS)
        attributes = {
            "holdfast.log_index": event.index,
            "holdfast.operations": event.ops,
            "holdfast.bytes": event.bytes,
        }
        parent = tracer.start_span("holdfast.entry", start_time=queued, attributes=attributes)
        context = set_span_in_context(parent)
        index = {"holdfast.log_index": event.index}
        span("holdfast.queue", queued, appended, index, context=context)
        span("holdfast.replicate", appended, applied, index, context=context)
        span("holdfast.apply", applied, end, index, context=context)
        parent.end(end_time=end)

    def on_turn(event: engine.TurnCompleted) -> None:
        if event.flushed:
            end = time.time_ns()
            attributes = {"holdfast.entries": event.appended_entries, "holdfast.bytes": event.appended_bytes}
            span("holdfast.commit", end - int(event.commit_s * _NS), end, attributes)

    def on_delivered(event: delivery.RecordsDelivered) -> None:
        end = time.time_ns()
        attributes = {
            "messaging.system": "holdfast",
            "messaging.destination.name": event.topic,
            "messaging.consumer.group.name": event.group,
            "messaging.batch.message_count": event.records,
        }
        span("holdfast.deliver", end, end, attributes, kind=SpanKind.PRODUCER)

    return {
        rpc.PublishHandled: on_publish,
        engine.ProposalTimings: on_entry,
        engine.TurnCompleted: on_turn,
        delivery.RecordsDelivered: on_delivered,
    }
