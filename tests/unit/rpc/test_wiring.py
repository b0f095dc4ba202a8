"""Settings become bounds of the engine that fit together."""

import pytest

from holdfast.cluster.raft.settings import EngineSettings
from holdfast.rpc.settings import GIB, MIB, make
from holdfast.rpc.wiring import engine_settings


@pytest.mark.parametrize("quota", [64 * MIB, 512 * MIB, 2 * GIB, 64 * GIB])
def test_log_kept_for_others_leaves_most_of_the_quota_to_records(quota: int) -> None:
    engine = engine_settings(make(quota_bytes=quota))
    assert engine.keep_bytes <= engine.keep_bytes_for_laggards
    assert engine.keep_bytes_for_laggards + engine.storage_reserve <= quota // 2


def test_the_default_quota_keeps_the_engines_defaults() -> None:
    engine, defaults = engine_settings(make()), EngineSettings()
    assert engine.keep_bytes == defaults.keep_bytes
    assert engine.keep_bytes_for_laggards == defaults.keep_bytes_for_laggards
    assert engine.keep_entries_for_laggards == 64 * GIB // (512 * 1024)
