"""Stored and sent bytes never change their meaning: fields are only ever added.

``tests/golden/fields.txt`` lists every field, enum value and call; the other
files hold, for every message, the bytes of a sample made from the fields
listed; the last line of a name is today's sample, those before it are what
earlier versions wrote. A new field or message passes; one that is renumbered,
renamed, retyped or removed does not. Running this file as a script adds what
is new to the golden files, and never changes a line.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor, FileDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from holdfast.cluster import commands
from holdfast.v1 import log_pb2

GOLDEN = Path(__file__).parent.parent / "golden"
FIELDS = GOLDEN / "fields.txt"
NAMES = ("errors", "records", "topics", "bus", "groups", "cluster", "log", "peer")
FILES: dict[str, FileDescriptor] = {
    name: import_module(f"holdfast.v1.{name}_pb2").DESCRIPTOR for name in NAMES
}
_TYPES = {
    value: name.removeprefix("TYPE_").lower()
    for name, value in vars(FieldDescriptor).items()
    if name.startswith("TYPE_")
}


def _messages(file: FileDescriptor) -> Iterator[Descriptor]:
    for descriptor in file.message_types_by_name.values():
        yield descriptor
        yield from (nested for nested in descriptor.nested_types if not nested.GetOptions().map_entry)


def _field_line(field: FieldDescriptor) -> str:
    kind = _TYPES[field.type]
    if field.message_type is not None:
        kind = field.message_type.full_name
    elif field.enum_type is not None:
        kind = field.enum_type.full_name
    group = field.containing_oneof.name if field.containing_oneof is not None else "-"
    label = "repeated" if field.is_repeated else "single"
    return f"{field.containing_type.full_name} {field.number} {field.name} {kind} {label} {group}"


def field_table() -> list[str]:
    """Every field, enum value and call of the contract, one a line."""
    lines = []
    for file in FILES.values():
        for descriptor in _messages(file):
            lines += [_field_line(field) for field in descriptor.fields]
            for entry in (n for n in descriptor.nested_types if n.GetOptions().map_entry):
                lines += [_field_line(field) for field in entry.fields]
        for enum in file.enum_types_by_name.values():
            lines += [f"{enum.full_name} {value.number} {value.name} enum" for value in enum.values]
        for service in file.services_by_name.values():
            for method in service.methods:
                streams = f"{'stream' if method.client_streaming else 'one'} "
                streams += "stream" if method.server_streaming else "one"
                types = f"{method.input_type.full_name} {method.output_type.full_name}"
                lines.append(f"{service.full_name} {method.name} {types} {streams} call")
    return lines


def _scalar(field: FieldDescriptor, salt: int) -> Any:
    n = 1000 * field.number + salt
    kind = _TYPES[field.type]
    if kind == "string":
        return f"text {n}"
    if kind == "bytes":
        return bytes((n >> 8 & 255, n & 255, 0, 255))
    if kind == "bool":
        return True
    if kind in ("double", "float"):
        return n + 0.5
    if kind == "enum":
        assert field.enum_type is not None
        return field.enum_type.values[-1].number if salt else field.enum_type.values[0].number
    return -n if kind in ("sint32", "sint64") else n


def _known(descriptor: Descriptor, known: set[str]) -> list[FieldDescriptor]:
    return [field for field in descriptor.fields if _field_line(field) in known]


def sample(descriptor: Descriptor, known: set[str], choice: Mapping[str, str], salt: int = 1) -> Message:
    """A message with every known field set; ``choice`` picks the members of its oneofs."""
    message = GetMessageClass(descriptor)()
    for field in _known(descriptor, known):
        group = field.containing_oneof
        if group is not None and choice.get(group.name, group.fields[0].name) != field.name:
            continue
        nested = field.message_type
        if nested is not None and nested.GetOptions().map_entry:
            key, value = nested.fields_by_name["key"], nested.fields_by_name["value"]
            getattr(message, field.name)[_scalar(key, 1)] = _scalar(value, 1)
        elif field.is_repeated and nested is not None:
            getattr(message, field.name).extend(sample(nested, known, {}, salt + i) for i in (0, 1))
        elif field.is_repeated:
            getattr(message, field.name).extend(_scalar(field, salt + i) for i in (0, 1))
        elif nested is not None:
            getattr(message, field.name).CopyFrom(sample(nested, known, {}, salt))
        else:
            setattr(message, field.name, _scalar(field, salt))
    return message


def samples(file: FileDescriptor, known: set[str]) -> dict[str, Message]:
    """Samples of a file by name: one per message, and one per member of its oneofs."""
    found: dict[str, Message] = {}
    for descriptor in _messages(file):
        found[descriptor.full_name] = sample(descriptor, known, {})
        for field in _known(descriptor, known):
            group = field.containing_oneof
            if group is not None and len(group.fields) > 1:
                name = f"{descriptor.full_name}.{field.name}"
                found[name] = sample(descriptor, known, {group.name: field.name})
    return found


def framings() -> dict[str, bytes]:
    """Bytes that are not protobuf: the framing of log entries."""
    op = commands.encode_op(log_pb2.Op(delete_topic=log_pb2.DeleteTopicOp(name="t")), [b"one", b"two"])
    empty = commands.encode_op(log_pb2.Op())
    return {
        "commands.encode_op": op,
        "commands.encode_entry": commands.encode_entry(1_700_000_000_000_001, [op, empty]),
    }


def _read(path: Path) -> dict[str, list[str]]:
    """Hex by name, oldest first."""
    found: dict[str, list[str]] = {}
    for line in path.read_text().splitlines() if path.exists() else []:
        name, hexed = line.split(" ")
        found.setdefault(name, []).append(hexed)
    return found


def _listed() -> list[str]:
    return [line for line in FIELDS.read_text().splitlines() if line and not line.startswith("#")]


def test_fields_are_only_added() -> None:
    gone = sorted(set(_listed()) - set(field_table()))
    assert not gone, "renumbered, renamed, retyped or removed:\n" + "\n".join(gone)


def test_numbers_are_used_once() -> None:
    """Also against the past: a number that was ever listed belongs to one name for ever."""
    owners: dict[tuple[str, str], str] = {}
    for line in sorted({*_listed(), *field_table()}):
        owner, number, name, *_, last = line.split(" ")
        if last != "call":
            assert owners.setdefault((owner, number), name) == name, line


@pytest.mark.parametrize("name", NAMES)
def test_bytes_of_every_message(name: str) -> None:
    golden = _read(GOLDEN / f"{name}.txt")
    assert golden
    now = samples(FILES[name], set(_listed()))
    for message_name, versions in golden.items():
        message = now[message_name]
        assert message.SerializeToString(deterministic=True).hex() == versions[-1], message_name
        assert type(message).FromString(bytes.fromhex(versions[-1])) == message, message_name
        for hexed in versions:
            again = type(message).FromString(bytes.fromhex(hexed)).SerializeToString(deterministic=True)
            assert again.hex() == hexed, message_name


def test_bytes_of_the_framings() -> None:
    now = {name: data.hex() for name, data in framings().items()}
    golden = _read(GOLDEN / "framings.txt")
    assert golden
    assert {name: [now.get(name)] for name in golden} == golden


def test_old_readers_skip_new_fields() -> None:
    """What makes additions safe: unknown fields are carried, not refused."""
    newer = log_pb2.DeleteTopicOp(name="t").SerializeToString() + b"\xfa\x3f\x03new"  # field 1023
    assert log_pb2.DeleteTopicOp.FromString(newer).name == "t"


def _add(path: Path, now: Mapping[str, str]) -> None:
    old = _read(path)
    with path.open("a") as file:
        file.writelines(
            f"{name} {value}\n" for name, value in now.items() if old.get(name, [])[-1:] != [value]
        )


def main() -> None:
    """Add what is new to the golden files."""
    GOLDEN.mkdir(exist_ok=True)
    FIELDS.touch()
    listed = set(_listed())
    with FIELDS.open("a") as file:
        file.writelines(f"{line}\n" for line in field_table() if line not in listed)
    known = set(_listed())
    for name, descriptor in FILES.items():
        now = {
            key: message.SerializeToString(deterministic=True).hex()
            for key, message in samples(descriptor, known).items()
        }
        _add(GOLDEN / f"{name}.txt", now)
    _add(GOLDEN / "framings.txt", {name: data.hex() for name, data in framings().items()})


if __name__ == "__main__":
    main()
