"""Events become metrics and spans; off means no sink; nothing is global."""

import urllib.request

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from holdfast.cluster import events as engine
from holdfast.cluster.delivery import events as delivery
from holdfast.errors import PortInUseError
from holdfast.rpc import events as rpc
from holdfast.rpc import telemetry
from holdfast.rpc.settings import Telemetry as Settings


def start(**settings: object) -> telemetry.Telemetry:
    spans = settings.pop("spans", None)
    made = telemetry.start(
        Settings(enabled=True, trace_ratio=1.0, **settings),  # type: ignore[arg-type]
        node_id="n1",
        cluster_id="c1",
        version="0",
        span_exporter=spans,  # type: ignore[arg-type]
    )
    assert made is not None
    return made


def scrape(made: telemetry.Telemetry) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{made.prometheus_port}/metrics", timeout=5) as answer:
        return str(answer.read().decode())


def entry(index: int) -> engine.ProposalTimings:
    return engine.ProposalTimings(
        index=index, ops=3, bytes=1000, queued_s=0.001, replicate_s=0.002, apply_s=0.0005
    )


def test_off_gives_no_sink() -> None:
    assert telemetry.start(Settings(), node_id="n1", cluster_id="c1", version="0") is None


def test_events_and_gauges_reach_the_prometheus_text() -> None:
    made = start(prometheus="127.0.0.1:0")
    try:
        made.observe(
            lambda: telemetry.BrokerGauges(
                is_leader=True, term=4, commit_index=17, applied_index=16, log_end_index=18,
                pending_proposals=2, inflight_bytes=5, data_bytes=1000, quota_bytes=2000,
                disk_free_bytes=3000, accepting_writes=True,
                followers=(telemetry.FollowerLag("n2", 7),),
                groups=telemetry.GroupsMoment(
                    (telemetry.GroupLag("billing", "orders", 1, 42, 7.5, 3, 2),),
                    (telemetry.GroupMembers("billing", 4, 9),), 6,
                ),
                marks=7,
            )
        )  # fmt: skip
        made.sink(rpc.PublishHandled("orders", 10, 1000, 0.002, "", 17))
        made.sink(rpc.PublishHandled("orders", 1, 1000, 0.002, "", 18, repeats=3))
        made.sink(rpc.PublishHandled("orders", 10, 1000, 0.002, "NO_LEADER", 0))
        made.sink(rpc.TransactHandled(0.002, ""))
        made.sink(rpc.TransactHandled(0.002, "ALREADY_SETTLED"))
        made.sink(rpc.DeadLettersTaken("orders.dead", "redriven", 3))
        made.sink(rpc.DeadLettersTaken("orders.dead", "discarded", 4))
        made.sink(entry(17))
        made.sink(engine.ElectionStarted(term=4, pre_vote=True))
        made.sink(delivery.RecordsDelivered("billing", "orders", 5, 500))
        text = scrape(made)
    finally:
        made.close()
    for line in (
        "holdfast_publish_records_total{",
        'reason="NO_LEADER"',
        "holdfast_transactions_total",
        "holdfast_transact_duration_seconds_bucket",
        'reason="ALREADY_SETTLED"',
        "holdfast_redriven_total{",
        "holdfast_discarded_total{",
        "holdfast_replicate_duration_seconds_bucket",
        "holdfast_entry_size_bytes_bucket",
        "holdfast_elections_total{",
        "holdfast_follower_lag{",
        'group="billing"',
        "holdfast_raft_commit_index ",
        "holdfast_deliver_records_total{",
    ):
        assert line in text, line
    for name, value in (
        ("holdfast_idempotency_marks", "7.0"),
        ("holdfast_idempotency_repeats_total{", "3.0"),
    ):
        found = next(line for line in text.splitlines() if line.startswith(name))
        assert found.endswith(f" {value}")
    values = {
        line.partition("{")[0].partition(" ")[0]: float(line.rpartition(" ")[2])
        for line in text.splitlines()
        if line.startswith("holdfast_group_")
    }
    assert values == {
        "holdfast_group_lag": 42.0,
        "holdfast_group_lag_seconds": 7.5,
        "holdfast_group_retrying": 3.0,
        "holdfast_group_parked": 2.0,
        "holdfast_group_members": 4.0,
        "holdfast_group_in_flight": 9.0,
        "holdfast_group_lag_truncated": 6.0,
    }


def test_what_becomes_of_records_is_counted_per_group() -> None:
    made = start(prometheus="127.0.0.1:0")
    try:
        made.sink(delivery.RecordsHeard("billing", 5, 2))
        made.sink(delivery.RecordsHeard("billing", 1))
        for number, cause in enumerate(("nack", "expired", "lost", "rejected", "parked"), 10):
            made.sink(delivery.RecordsCharged("billing", cause, number))
        made.sink(delivery.RecordsDied("billing", 3))
        made.sink(delivery.GroupRebalanced("billing", 7, 2, 8, 4, 1))
        text = scrape(made)
    finally:
        made.close()
    values = {
        line.partition("{")[0]: float(line.rpartition(" ")[2])
        for line in text.splitlines()
        if 'group="billing"' in line and "_created" not in line
    }
    assert values == {
        "holdfast_settle_acks_total": 6.0,
        "holdfast_settle_released_total": 2.0,
        "holdfast_settle_nacks_total": 10.0,
        "holdfast_settle_expired_total": 11.0,
        "holdfast_settle_lost_total": 12.0,
        "holdfast_settle_rejected_total": 13.0,
        "holdfast_settle_parked_total": 14.0,
        "holdfast_dead_letters_total": 3.0,
        "holdfast_group_rebalances_total": 1.0,
        "holdfast_group_handovers_total": 4.0,
        "holdfast_group_handovers_timed_out_total": 1.0,
    }


def test_an_unknown_event_is_ignored() -> None:
    made = start(prometheus="127.0.0.1:0")
    try:
        made.sink(object())
    finally:
        made.close()


def test_a_publish_continues_the_callers_trace_and_an_entry_has_its_stages() -> None:
    spans = InMemorySpanExporter()
    made = start(spans=spans)
    trace, parent = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    made.sink(rpc.PublishHandled("orders", 1, 10, 0.002, "", 17, f"00-{trace}-{parent}-01"))
    made.sink(entry(17))
    made.close()
    by_name = {span.name: span for span in spans.get_finished_spans()}
    publish = by_name["holdfast.publish"]
    assert publish.context is not None
    assert f"{publish.context.trace_id:032x}" == trace
    assert publish.attributes is not None
    assert publish.attributes["holdfast.log_index"] == 17
    root = by_name["holdfast.entry"]
    assert root.context is not None
    for stage in ("holdfast.queue", "holdfast.replicate", "holdfast.apply"):
        span = by_name[stage]
        assert span.parent is not None
        assert span.parent.span_id == root.context.span_id


def test_two_brokers_in_one_process_have_registries_of_their_own() -> None:
    one, two = start(prometheus="127.0.0.1:0"), start(prometheus="127.0.0.1:0")
    try:
        one.sink(engine.ElectionStarted(term=1, pre_vote=False))
        assert "holdfast_elections_total{" in scrape(one)
        assert "holdfast_elections_total{" not in scrape(two)
        with pytest.raises(PortInUseError, match=str(one.prometheus_port)):
            start(prometheus=f"127.0.0.1:{one.prometheus_port}")
    finally:
        one.close()
        two.close()
