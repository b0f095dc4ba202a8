"""Settings to constructor arguments of the layers below."""

from __future__ import annotations

from holdfast.cluster.raft.settings import EngineSettings
from holdfast.rpc.settings import KIB, MIB, Settings

_DEFAULTS = EngineSettings()


def engine_settings(settings: Settings) -> EngineSettings:
    """Engine tunables; a small quota gets small reserves."""
    raft = settings.raft
    reserve = min(256 * MIB, settings.quota_bytes // 8)
    return EngineSettings(
        heartbeat=raft.heartbeat_ms / 1000,
        election_min=raft.election_timeout_min_ms / 1000,
        election_max=raft.election_timeout_max_ms / 1000,
        leader_fallback=1.5 * raft.election_timeout_max_ms / 1000,
        # The largest request plus its description.
        max_op_bytes=settings.limits.max_request_bytes + MIB,
        storage_reserve=reserve,
        follower_reserve=reserve // 2,
        # Log that the state needs no more must not fill a small quota by itself.
        keep_entries=min(_DEFAULTS.keep_entries, max(8, settings.quota_bytes // (8 * MIB))),
        keep_entries_for_laggards=min(
            _DEFAULTS.keep_entries_for_laggards, max(64, settings.quota_bytes // (512 * KIB))
        ),
        # An entry may be a megabyte: without these a follower that stays away would fill the quota
        # of the others, and a minority would stop publishing.
        keep_bytes=min(_DEFAULTS.keep_bytes, settings.quota_bytes // 8),
        keep_bytes_for_laggards=min(_DEFAULTS.keep_bytes_for_laggards, settings.quota_bytes // 4),
    )
