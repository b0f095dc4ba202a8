"""Settings: sources, precedence, unknown keys, contradictions."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.errors import ConfigurationError
from holdfast.rpc.settings import Address, Member, Settings, load, make, parse_members


def test_defaults_run_a_single_node() -> None:
    settings = load(env={})
    assert settings == Settings()
    assert settings.client_listen_address == Address("127.0.0.1", 7450)
    assert not settings.members


def test_later_sources_win(tmp_path: Path) -> None:
    file = tmp_path / "holdfast.toml"
    file.write_text(
        'node_id = "a"\nlisten = "127.0.0.1:1"\n[limits]\nmax_headers = 3\n[raft]\nheartbeat_ms = 40\n',
        encoding="utf-8",
    )
    env = {"HOLDFAST_LISTEN": "127.0.0.1:2", "HOLDFAST_RAFT_HEARTBEAT_MS": "30", "PATH": "x"}
    settings = load(
        file, env=env, overrides={"listen": "127.0.0.1:3", "limits.max_key_bytes": 7, "node_id": None}
    )
    assert settings.node_id == "a"
    assert settings.listen == "127.0.0.1:3"
    assert (settings.limits.max_headers, settings.limits.max_key_bytes) == (3, 7)
    assert settings.raft.heartbeat_ms == 30


def test_config_file_named_by_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_text('cluster_id = "prod"', encoding="utf-8")
    assert load(env={"HOLDFAST_CONFIG": str(file)}).cluster_id == "prod"


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"node_idd": "x"}, "node_id?"),
        ({"limits": {"max_recrod_bytes": 1}}, "limits.max_record_bytes?"),
        ({"raft": {"heartbeat": 1}}, "raft.heartbeat_ms?"),
        ({"members": {"n1": {"client": "a:1", "peeer": "a:2"}}}, "members.n1.peer?"),
        ({"zzzzqq": 1}, "known: node_id"),
    ],
)
def test_unknown_key_names_the_nearest(values: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigurationError, match="unknown setting") as caught:
        make(values)
    assert named in caught.value.message


def test_unknown_environment_variable_names_the_nearest() -> None:
    with pytest.raises(ConfigurationError, match=r"HOLDFAST_NODEID; did you mean HOLDFAST_NODE_ID\?"):
        load(env={"HOLDFAST_NODEID": "x"})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"node_id": "a b"}, "node_id"),
        ({"listen": "nowhere"}, "listen: 'nowhere' is not host:port"),
        ({"listen": "h:70000"}, "0 to 65535"),
        ({"listen": "::1:7450"}, r"\[address\]:port"),
        ({"limits": {"max_headers": "many"}}, r"limits\.max_headers"),
        ({"limits": {"max_headers": 0}}, "at least 1"),
        ({"limits": {"max_record_bytes": 1 << 30}}, "more than limits.max_batch_bytes"),
        ({"raft": {"heartbeat_ms": 300}}, "a third"),
        ({"raft": 3}, "raft is a section"),
        ({"quota_bytes": 1}, "quota_bytes"),
        ({"members": "n2=h:1/2"}, "does not name this node, 'n1'"),
        ({"members": "n1=h:1/2,n1=h:3/4"}, "named twice"),
        ({"members": "n1=h:1/2,n2=h:3/2"}, "same address"),
        ({"members": "n1=h:1"}, "not of the form"),
        ({"telemetry": {"prometheus": "x"}}, r"telemetry\.prometheus"),
        ({"log": {"level": "loud"}}, r"log\.level"),
    ],
)
def test_bad_values_are_named(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        make(values)


def test_broken_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="No such file"):
        load(tmp_path / "none.toml", env={})
    file = tmp_path / "bad.toml"
    file.write_text("a = = 1", encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"bad\.toml"):
        load(file, env={})


def test_members_text() -> None:
    members = parse_members("n1=a:1/2, n2=b:3/c:4, n3=[::1]:5/6")
    assert members == {
        "n1": {"client": "a:1", "peer": "a:2"},
        "n2": {"client": "b:3", "peer": "c:4"},
        "n3": {"client": "[::1]:5", "peer": "[::1]:6"},
    }
    settings = load(env={"HOLDFAST_MEMBERS": "n1=a:1/2,n2=b:3/4"})
    assert settings.members["n2"] == Member(client="b:3", peer="b:4")


def test_settings_are_frozen() -> None:
    with pytest.raises(AttributeError):
        Settings().node_id = "x"  # type: ignore[misc]


@pytest.mark.parametrize("members", [5, ["n1"], True])
def test_members_that_are_no_table(members: object) -> None:
    with pytest.raises(ConfigurationError, match="members"):
        make(members=members)


def test_a_quota_beyond_the_address_space() -> None:
    assert make(quota_bytes=2 << 40).quota_bytes == 2 << 40
    with pytest.raises(ConfigurationError, match="quota_bytes: must be at most"):
        make(quota_bytes=10**23)
