"""W3C trace context, there and back."""

from __future__ import annotations

from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState

from holdfast.client.inputs import to_headers
from holdfast.client.tracing import extract, make_inject, no_context

CONTEXT = SpanContext(
    trace_id=0x0AF7651916CD43DD8448EB211C80319C,
    span_id=0xB7AD6B7169203331,
    is_remote=False,
    trace_flags=TraceFlags(1),
    trace_state=TraceState([("vendor", "x")]),
)
PARENT = ("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")


def test_there_and_back() -> None:
    inject = make_inject(True)
    assert inject() is None
    with trace.use_span(NonRecordingSpan(CONTEXT)):
        headers = inject()
        assert headers == (PARENT, ("tracestate", b"vendor=x"))
        assert make_inject(False)() is None
    assert headers is not None
    found = trace.get_current_span(extract(headers)).get_span_context()
    assert (found.trace_id, found.span_id, found.is_remote) == (CONTEXT.trace_id, CONTEXT.span_id, True)
    assert found.trace_state["vendor"] == "x"
    assert make_inject(False) is no_context


def test_an_invalid_span_is_none() -> None:
    with trace.use_span(NonRecordingSpan(SpanContext(0, 0, is_remote=False))):
        assert make_inject(True)() is None


def test_what_carries_nothing() -> None:
    assert extract(()) is None
    assert extract((("traceparent", b"nonsense"),)) is None
    assert extract((("tracestate", b"vendor=x"),)) is None


def test_the_callers_own_header_stays() -> None:
    own = {"traceparent": "mine", "a": b"b"}
    assert to_headers(own, (PARENT, ("tracestate", b"x"))) == (
        ("traceparent", b"mine"),
        ("a", b"b"),
        ("tracestate", b"x"),
    )
    assert to_headers(None, (PARENT,)) == (PARENT,)
    assert to_headers([], None) is None
