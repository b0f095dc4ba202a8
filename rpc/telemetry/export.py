"""Starts and stops OpenTelemetry for one broker.

Nothing is global: a process may host several brokers, each with providers and
a Prometheus registry of its own. With telemetry off there is no sink at all,
so lower layers pay one comparison with None.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any
from wsgiref.simple_server import WSGIServer

from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from prometheus_client import CollectorRegistry, start_http_server

from holdfast.cluster.ports import EventSink
from holdfast.errors import PortInUseError
from holdfast.rpc.settings import Address
from holdfast.rpc.settings import Telemetry as TelemetrySettings
from holdfast.rpc.telemetry import gauges, metrics, spans

logger = logging.getLogger(__name__)


class Telemetry:
    """A running exporter; ``sink`` takes the events of all layers, from any thread."""

    def __init__(
        self,
        meters: MeterProvider,
        tracers: TracerProvider | None,
        http: tuple[WSGIServer, threading.Thread] | None,
    ) -> None:
        self._meters = meters
        self._tracers = tracers
        self._http = http
        self._meter = meters.get_meter("holdfast")
        by_type: dict[type, list[metrics.Handler]] = {}
        made = [metrics.handlers(self._meter)]
        if tracers is not None:
            made.append(spans.handlers(tracers.get_tracer("holdfast")))
        for handlers in made:
            for kind, handler in handlers.items():
                by_type.setdefault(kind, []).append(handler)
        self._handlers = by_type

    @property
    def sink(self) -> EventSink:
        """Where the layers send their events."""
        return self._on_event

    @property
    def prometheus_port(self) -> int | None:
        """The port Prometheus text is served on, if it is."""
        return None if self._http is None else int(self._http[0].server_port)

    def observe(self, read: Callable[[], gauges.BrokerGauges]) -> None:
        """Read these gauges at every collection."""
        gauges.register(self._meter, read)

    def close(self) -> None:
        """Flush and stop; export errors are logged by the exporters."""
        if self._http is not None:
            server, thread = self._http
            server.shutdown()
            server.server_close()
            thread.join(5.0)
        self._meters.shutdown()
        if self._tracers is not None:
            self._tracers.shutdown()

    def _on_event(self, event: object) -> None:
        for handler in self._handlers.get(type(event), ()):
            try:
                handler(event)
            except Exception:
                logger.exception("telemetry handler failed for %s", type(event).__name__)


def start(
    settings: TelemetrySettings,
    *,
    node_id: str,
    cluster_id: str,
    version: str,
    span_exporter: SpanExporter | None = None,
) -> Telemetry | None:
    """Telemetry as configured; None when it is off.

    Args:
        span_exporter: takes the spans instead of OTLP (tests).

    Raises:
        PortInUseError: the Prometheus port is taken.
    """
    if not settings.enabled:
        return None
    resource = Resource.create(
        {
            "service.name": "holdfast",
            "service.namespace": cluster_id,
            "service.instance.id": node_id,
            "service.version": version,
        }
    )
    readers: list[MetricReader] = []
    http = None
    if settings.prometheus:
        registry = CollectorRegistry()
        readers.append(PrometheusMetricReader(registry=registry, scope_info_enabled=False))
        http = _serve(settings.prometheus, registry)
    tracers = None
    endpoint = settings.otlp_endpoint
    if endpoint:
        insecure = not endpoint.startswith("https://")
        readers.append(
            PeriodicExportingMetricReader(OTLPMetricExporter(endpoint=endpoint, insecure=insecure))
        )
        span_exporter = span_exporter or OTLPSpanExporter(endpoint=endpoint, insecure=insecure)
    if span_exporter is not None:
        sampler = ParentBased(TraceIdRatioBased(settings.trace_ratio))
        tracers = TracerProvider(resource=resource, sampler=sampler)
        tracers.add_span_processor(BatchSpanProcessor(span_exporter))
    return Telemetry(MeterProvider(readers, resource), tracers, http)


def _serve(where: str, registry: CollectorRegistry) -> tuple[WSGIServer, threading.Thread]:
    address = Address.parse(where, "telemetry.prometheus")
    try:
        served: Any = start_http_server(address.port, address.host, registry)
    except OSError as error:
        raise PortInUseError(
            f"cannot serve Prometheus text on {address}: {error.strerror or error}; "
            "choose another port with telemetry.prometheus"
        ) from error
    server, thread = served
    return server, thread
