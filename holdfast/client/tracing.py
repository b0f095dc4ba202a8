"""W3C trace context in record headers.

https://www.w3.org/TR/trace-context/: ``traceparent`` and, when there is one,
``tracestate``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from holdfast.headers import TRACEPARENT, TRACESTATE
from holdfast.records import Headers

if TYPE_CHECKING:
    from opentelemetry.context import Context

#: Headers of the active span, or None when there is none.
Inject = Callable[[], Headers | None]


def no_context() -> Headers | None:
    """Trace context switched off."""
    return None


def make_inject(enabled: bool) -> Inject:
    """What a producer calls per record; costs about 0.2 microseconds without a span."""
    if not enabled:
        return no_context
    from opentelemetry.trace import INVALID_SPAN, get_current_span  # noqa: PLC0415  (only when wanted)

    def inject() -> Headers | None:
        span = get_current_span()
        if span is INVALID_SPAN:
            return None
        context = span.get_span_context()
        if not context.is_valid:
            return None
        parent = f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
        if not context.trace_state:
            return ((TRACEPARENT, parent.encode()),)
        return (TRACEPARENT, parent.encode()), (TRACESTATE, context.trace_state.to_header().encode())

    return inject


def extract(headers: Headers) -> Context | None:
    """The OpenTelemetry context carried by headers; None when they carry none."""
    carrier = {
        name: value.decode("ascii", "replace") for name, value in headers if name in (TRACEPARENT, TRACESTATE)
    }
    if TRACEPARENT not in carrier:
        return None
    from opentelemetry.trace import get_current_span  # noqa: PLC0415  (only when there is something to read)
    from opentelemetry.trace.propagation.tracecontext import (  # noqa: PLC0415
        TraceContextTextMapPropagator,
    )

    context = TraceContextTextMapPropagator().extract(carrier)
    return context if get_current_span(context).get_span_context().is_valid else None
