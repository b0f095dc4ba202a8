"""Settings of a broker: frozen, validated, unknown keys refused.

Sources, later ones win: defaults, a TOML file, ``HOLDFAST_*`` environment
variables, overrides (the command line). In the environment a section's key is
``HOLDFAST_<SECTION>_<KEY>``, such as ``HOLDFAST_RAFT_HEARTBEAT_MS``.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec

from holdfast.errors import ConfigurationError

ENV_PREFIX = "HOLDFAST_"
#: Variables that are not a broker's: the client's, the command line's and the tests'.
_FOREIGN_ENV = re.compile(r"HOLDFAST_(CONFIG|ENDPOINTS?|CLIENT_.*|CLI_.*|TEST_.*|DEMO_.*|BENCH_.*|CHAOS_.*)$")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30
#: What the address space of a process has room for, twice.
MAX_QUOTA_BYTES = 32 << 40


class Address(NamedTuple):
    """A host name or IP address and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @classmethod
    def parse(cls, text: str, what: str = "address") -> Address:
        """``host:port``, ``[ipv6]:port`` or ``:port`` (all interfaces).

        Raises:
            ConfigurationError: not of that form; ``what`` names the setting.
        """
        host, colon, port = text.rpartition(":")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        elif ":" in host:
            raise ConfigurationError(f"{what}: {text!r}: an IPv6 address is written [address]:port")
        if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
            raise ConfigurationError(f"{what}: {text!r} is not host:port with a port of 0 to 65535")
        return cls(host or "0.0.0.0", int(port))


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of all settings."""


class Member(Section, frozen=True):
    """Where one broker of the cluster is reached (host:port)."""

    client: str
    peer: str


class Limits(Section, frozen=True):
    """Bounds on what callers send and on what waits; sizes in bytes."""

    #: Key + value + headers of one record, for topics that set no limit of their own.
    max_record_bytes: int = 1 * MIB
    #: One encoded batch, also after decompression.
    max_batch_bytes: int = 16 * MIB
    #: All batches or records of one Publish: one operation of the log.
    max_request_bytes: int = 16 * MIB
    max_key_bytes: int = 4 * KIB
    max_headers: int = 64
    #: Names and values of one record's headers together.
    max_header_bytes: int = 16 * KIB
    #: Publishes this node has taken and not yet answered.
    max_inflight_calls: int = 4096
    max_inflight_bytes: int = 48 * MIB
    #: The same for one PublishStream, which then is read no further.
    stream_inflight_requests: int = 1024
    stream_inflight_bytes: int = 16 * MIB
    #: Deadline of a call that brings none, in milliseconds.
    default_deadline_ms: int = 10_000


class Raft(Section, frozen=True):
    """Timings of the consensus engine, in milliseconds."""

    heartbeat_ms: int = 50
    election_timeout_min_ms: int = 400
    election_timeout_max_ms: int = 800


class Maintenance(Section, frozen=True):
    """What the leader does from time to time."""

    #: Between two looks at what retention lets go of, in milliseconds.
    interval_ms: int = 10_000
    #: Producers idle this long lose their idempotence state: a week.
    producer_idle_ms: int = 7 * 24 * 3600 * 1000
    #: What each node reads of its own data to find damage early, in MiB a second; 0: not at all.
    scrub_mib_per_s: int = 4


class Telemetry(Section, frozen=True):
    """Off by default; off costs nothing."""

    enabled: bool = False
    #: host:port where Prometheus text is served; empty: not served.
    prometheus: str = ""
    #: OTLP (gRPC) endpoint, such as http://collector:4317; empty: not exported.
    otlp_endpoint: str = ""
    #: Share of traces kept, 0 to 1, when a caller's own trace does not decide.
    trace_ratio: float = 0.01


class Log(Section, frozen=True):
    level: Literal["debug", "info", "warning", "error"] = "info"
    #: json: one object a line.
    format: Literal["human", "json"] = "human"


class Settings(Section, frozen=True):
    """All settings of one broker. Defaults run a single node on this machine."""

    node_id: str = "n1"
    cluster_id: str = "holdfast"
    #: Where clients are served (gRPC); port 0 picks a free one.
    listen: str = "127.0.0.1:7450"
    #: Where the other brokers connect; not opened by a single node.
    peer_listen: str = "127.0.0.1:7451"
    #: What clients and peers are told instead of the listen addresses.
    advertise: str = ""
    peer_advertise: str = ""
    #: All voters, this node included; empty: a single node.
    members: dict[str, Member] = {}
    data_dir: str = "./holdfast-data"
    #: Publishes are refused when the data would grow past this.
    quota_bytes: int = 64 * GIB
    limits: Limits = Limits()
    raft: Raft = Raft()
    maintenance: Maintenance = Maintenance()
    telemetry: Telemetry = Telemetry()
    log: Log = Log()

    @property
    def client_listen_address(self) -> Address:
        return Address.parse(self.listen, "listen")

    @property
    def peer_listen_address(self) -> Address:
        return Address.parse(self.peer_listen, "peer_listen")

    @property
    def data_path(self) -> Path:
        return Path(self.data_dir).expanduser()


def parse_members(text: str) -> dict[str, dict[str, str]]:
    """``n1=host:clientport/peerport,n2=…`` as the ``members`` setting.

    The part after the slash is a port of the same host, or a full host:port.

    Raises:
        ConfigurationError: not of that form.
    """
    members: dict[str, dict[str, str]] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        node_id, equals, where = part.partition("=")
        client, slash, peer = where.partition("/")
        if not equals or not slash or not node_id:
            raise ConfigurationError(f"members: {part!r} is not of the form n1=host:clientport/peerport")
        if node_id in members:
            raise ConfigurationError(f"members: {node_id!r} is named twice")
        address = Address.parse(client, f"members.{node_id}.client")
        if ":" not in peer:
            peer = str(Address(address.host, 0))[:-1] + peer
        members[node_id] = {"client": client, "peer": peer}
    if not members:
        raise ConfigurationError("members: empty; leave it out to run a single node")
    return members


def load(
    file: Path | None = None,
    *,
    env: Mapping[str, str] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Settings:
    """Settings from a TOML file, the environment and overrides.

    Args:
        file: a TOML file; ``HOLDFAST_CONFIG`` names one when this is None.
        env: the environment; None: the process's.
        overrides: nested like the file, or with dotted keys (``raft.heartbeat_ms``);
            None values are skipped, so that unset flags can be passed through.

    Raises:
        ConfigurationError: an unknown key (the nearest valid one is named), a
            malformed value, or values that contradict each other.
    """
    env = os.environ if env is None else env
    if file is None and env.get(ENV_PREFIX + "CONFIG"):
        file = Path(env[ENV_PREFIX + "CONFIG"])
    merged: dict[str, Any] = {}
    if file is not None:
        _merge(merged, _read_toml(file), str(file))
    _merge(merged, _from_env(env), "environment")
    _merge(merged, _from_overrides(overrides or {}), "command line")
    return make(merged)


def make(values: Mapping[str, Any] | None = None, /, **more: Any) -> Settings:
    """Validated settings from plain values.

    Raises:
        ConfigurationError: as ``load``.
    """
    data = {**(values or {}), **more}
    if isinstance(data.get("members"), str):
        data["members"] = parse_members(data["members"]) if data["members"] else {}
    if isinstance(data.get("data_dir"), os.PathLike):
        data["data_dir"] = os.fspath(data["data_dir"])
    for key, value in data.items():
        if isinstance(value, msgspec.Struct):
            data[key] = msgspec.to_builtins(value)
    if not isinstance(data.get("members") or {}, Mapping):
        raise _bad("members", "is a table of brokers, or text of the form n1=host:clientport/peerport,n2=…")
    data["members"] = {
        name: msgspec.to_builtins(member) if isinstance(member, msgspec.Struct) else member
        for name, member in (data.get("members") or {}).items()
    }
    _check_keys(data, Settings, "")
    try:
        settings = msgspec.convert(data, Settings, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"settings: {_readable(error)}") from None
    _check(settings)
    return settings


# -- sources -------------------------------------------------------------------


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"settings file {file}: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"settings file {file}: {error}") from None


def _from_env(env: Mapping[str, str]) -> dict[str, Any]:
    names = _flat_names()
    found: dict[str, Any] = {}
    for variable, text in sorted(env.items()):
        if not variable.startswith(ENV_PREFIX) or _FOREIGN_ENV.match(variable):
            continue
        name = variable[len(ENV_PREFIX) :].lower()
        if name not in names:
            near = _nearest(name, names)
            hint = f"; did you mean {ENV_PREFIX}{near.upper()}?" if near else ""
            raise ConfigurationError(f"unknown setting in the environment: {variable}{hint}")
        _set(found, names[name], text)
    return found


def _from_overrides(overrides: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in overrides.items():
        if value is not None:
            _set(found, key.split("."), value)
    return found


def _flat_names() -> dict[str, list[str]]:
    names: dict[str, list[str]] = {}
    for field in msgspec.structs.fields(Settings):
        inner = _section(field.type)
        if inner is None:
            names[field.name] = [field.name]
        else:
            names.update(
                {f"{field.name}_{f.name}": [field.name, f.name] for f in msgspec.structs.fields(inner)}
            )
    return names


def _set(into: dict[str, Any], path: list[str], value: Any) -> None:
    for part in path[:-1]:
        into = into.setdefault(part, {})
    into[path[-1]] = value


def _merge(into: dict[str, Any], values: Mapping[str, Any], source: str) -> None:
    for key, value in values.items():
        if isinstance(value, Mapping) and key != "members":
            present = into.setdefault(key, {})
            if not isinstance(present, dict):
                raise ConfigurationError(f"{source}: {key} is a section")
            _merge(present, value, source)
        else:
            into[key] = value


# -- checks --------------------------------------------------------------------


def _section(kind: Any) -> type[msgspec.Struct] | None:
    return kind if isinstance(kind, type) and issubclass(kind, msgspec.Struct) else None


def _check_keys(data: Mapping[str, Any], kind: type[msgspec.Struct], where: str) -> None:
    fields = {field.name: field for field in msgspec.structs.fields(kind)}
    for key, value in data.items():
        if key not in fields:
            near = _nearest(key, fields)
            hint = f"; did you mean {where}{near}?" if near else f"; known: {', '.join(fields)}"
            raise ConfigurationError(
                f"unknown setting {where}{key}{hint}", metadata={"field": f"{where}{key}"}
            )
        inner = _section(fields[key].type)
        if inner is not None:
            if not isinstance(value, Mapping):
                raise ConfigurationError(f"settings: {where}{key} is a section, not a value")
            _check_keys(value, inner, f"{where}{key}.")
        elif key == "members" and not where and isinstance(value, Mapping):
            for name, member in value.items():
                if isinstance(member, Mapping):
                    _check_keys(member, Member, f"members.{name}.")


def _nearest(name: str, known: Iterable[str]) -> str | None:
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return close[0] if close else None


def _readable(error: msgspec.ValidationError) -> str:
    # "Expected `int`, got `str` - at `$.limits.max_headers`"
    text, _, place = str(error).partition(" - at `$.")
    return f"{place.rstrip('`')}: {text}" if place else text


def _check(settings: Settings) -> None:
    for what in ("node_id", "cluster_id"):
        value = getattr(settings, what)
        if not _NAME.match(value):
            raise _bad(
                what,
                f"{value!r} is not 1 to 63 characters of A-Z a-z 0-9 . _ -, starting with one of A-Z a-z 0-9",
            )
    for what in ("listen", "peer_listen"):
        Address.parse(getattr(settings, what), what)
    for what in ("advertise", "peer_advertise"):
        if getattr(settings, what):
            Address.parse(getattr(settings, what), what)
    _check_members(settings)
    for section, struct in (
        ("limits", settings.limits),
        ("raft", settings.raft),
        ("maintenance", settings.maintenance),
    ):
        for field in msgspec.structs.fields(struct):
            if getattr(struct, field.name) <= 0:
                raise _bad(f"{section}.{field.name}", "must be at least 1")
    limits, raft = settings.limits, settings.raft
    _ordered(
        "limits.max_record_bytes", limits.max_record_bytes, "limits.max_batch_bytes", limits.max_batch_bytes
    )
    _ordered(
        "limits.max_batch_bytes", limits.max_batch_bytes, "limits.max_request_bytes", limits.max_request_bytes
    )
    _ordered(
        "limits.max_request_bytes",
        limits.max_request_bytes,
        "limits.max_inflight_bytes",
        limits.max_inflight_bytes,
    )
    if limits.max_request_bytes > 32 * MIB:
        raise _bad(
            "limits.max_request_bytes", "must be at most 32 MiB, so that a message of gRPC can carry it"
        )
    _ordered(
        "raft.election_timeout_min_ms",
        raft.election_timeout_min_ms,
        "raft.election_timeout_max_ms",
        raft.election_timeout_max_ms,
    )
    if raft.heartbeat_ms * 3 > raft.election_timeout_min_ms:
        raise _bad(
            "raft.heartbeat_ms",
            "must be at most a third of raft.election_timeout_min_ms, or followers call elections",
        )
    if settings.quota_bytes < 64 * MIB:
        raise _bad("quota_bytes", "must be at least 64 MiB")
    if settings.quota_bytes > MAX_QUOTA_BYTES:
        raise _bad("quota_bytes", f"must be at most {MAX_QUOTA_BYTES >> 40} TiB")
    if not 0 <= settings.telemetry.trace_ratio <= 1:
        raise _bad("telemetry.trace_ratio", "must be between 0 and 1")
    if settings.telemetry.prometheus:
        Address.parse(settings.telemetry.prometheus, "telemetry.prometheus")


def _check_members(settings: Settings) -> None:
    members = settings.members
    if not members:
        return
    if settings.node_id not in members:
        raise _bad(
            "members", f"does not name this node, {settings.node_id!r}; it lists {', '.join(sorted(members))}"
        )
    seen: dict[str, str] = {}
    for node_id, member in members.items():
        if not _NAME.match(node_id):
            raise _bad("members", f"{node_id!r} is no valid node id")
        for what in ("client", "peer"):
            where = f"members.{node_id}.{what}"
            address = Address.parse(getattr(member, what), where)
            if address.port == 0 and len(members) > 1 and node_id != settings.node_id:
                raise _bad(where, "needs a port")
            other = seen.setdefault(str(address), where)
            if other != where and address.port:
                raise _bad(where, f"is the same address as {other}")


def _ordered(low_name: str, low: int, high_name: str, high: int) -> None:
    if low > high:
        raise _bad(low_name, f"is {low}, more than {high_name} ({high})")


def _bad(field: str, message: str) -> ConfigurationError:
    return ConfigurationError(f"settings: {field}: {message}", metadata={"field": field})
