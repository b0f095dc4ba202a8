"""Topics that come and go do not grow a broker's metrics for ever."""

import urllib.request

from holdfast.cluster.delivery import events as delivery
from holdfast.rpc import events as rpc
from holdfast.rpc import telemetry
from holdfast.rpc.settings import Telemetry as Settings

#: Label sets per instrument, of the OpenTelemetry SDK; what is beyond is counted together.
LIMIT = 2000


def test_series_are_bounded_and_what_is_beyond_is_still_counted() -> None:
    made = telemetry.start(
        Settings(enabled=True, prometheus="127.0.0.1:0"), node_id="n1", cluster_id="c1", version="0"
    )
    assert made is not None
    try:
        for number in range(LIMIT + 500):
            topic = f"short-lived-{number}"
            made.sink(rpc.PublishHandled(topic, 2, 10, 0.001, "", 17))
            made.sink(delivery.RecordsDelivered("g", topic, 2, 10))
        with urllib.request.urlopen(f"http://127.0.0.1:{made.prometheus_port}/metrics", timeout=30) as answer:
            lines = answer.read().decode().splitlines()
    finally:
        made.close()
    for name in ("holdfast_publish_records_total{", "holdfast_deliver_records_total{"):
        series = [line for line in lines if line.startswith(name)]
        assert len(series) <= LIMIT + 1
        assert sum(float(line.rpartition(" ")[2]) for line in series) == 2 * (LIMIT + 500)
        assert any("overflow" in line for line in series)
