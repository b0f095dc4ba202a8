"""What telemetry reads of a broker at the moment of a scrape."""

from __future__ import annotations

import time
from collections.abc import Callable

from holdfast.cluster.results import EngineStatus, Role
from holdfast.errors import HoldfastError
from holdfast.rpc.admission import Admission
from holdfast.rpc.telemetry.gauges import BrokerGauges, FollowerLag, GroupsMoment
from holdfast.storage import marks
from holdfast.storage.port import Store


class GaugeSource:
    """A moment of one broker, read anew when the last one is older than ``max_age_s``.

    Called on the exporter's thread, once per instrument. All it reads may be
    read from any thread: immutable snapshots, counters, a read transaction.
    """

    def __init__(
        self,
        store: Store,
        status: Callable[[], EngineStatus],
        admission: Admission,
        groups: Callable[[], GroupsMoment],
        max_age_s: float = 0.5,
    ) -> None:
        self._store = store
        self._status = status
        self._admission = admission
        self._groups = groups
        self._max_age_s = max_age_s
        self._read_at = float("-inf")
        self._last: BrokerGauges | None = None

    def __call__(self) -> BrokerGauges:
        now = time.monotonic()
        if self._last is None or now - self._read_at > self._max_age_s:
            self._last = read_gauges(self._store, self._status, self._admission, self._groups)
            self._read_at = now
        return self._last


def read_gauges(
    store: Store,
    status: Callable[[], EngineStatus],
    admission: Admission,
    groups: Callable[[], GroupsMoment],
) -> BrokerGauges:
    """See ``GaugeSource``."""
    now = status()
    usage = store.usage()
    leading = now.role is Role.LEADER
    try:
        moment = groups()
    except HoldfastError:
        moment = GroupsMoment()  # the store is closing
    try:
        known = _marks(store) if leading else 0
    except HoldfastError:
        known = 0  # likewise
    return BrokerGauges(
        is_leader=leading,
        term=now.term,
        commit_index=now.commit_index,
        applied_index=now.applied_index,
        log_end_index=now.last_log_index,
        pending_proposals=now.pending_proposals,
        inflight_bytes=admission.bytes,
        data_bytes=usage.used,
        quota_bytes=usage.quota,
        disk_free_bytes=usage.disk_free,
        accepting_writes=now.accepting_writes,
        followers=tuple(
            FollowerLag(peer.node_id, max(0, now.last_log_index - peer.match_index))
            for peer in now.peers
            if leading
        ),
        groups=moment,
        marks=known,
    )


def _marks(store: Store) -> int:
    with store.read() as reader:
        return marks.count(reader)
