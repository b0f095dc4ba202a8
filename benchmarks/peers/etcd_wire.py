"""The few messages of etcd's gRPC interface that the comparison sends, made when this module is loaded.

Names and numbers are etcd's; fields that are not used here are left out, and skipped when they arrive.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_PACKAGE = "holdfast_benchmarks.etcd"
#: Message → field → (number, type); ``*`` means repeated, a type with a capital letter is a message.
_MESSAGES = {
    "ResponseHeader": {"member_id": (2, "uint64")},
    "KeyValue": {"key": (1, "bytes"), "value": (5, "bytes")},
    "PutRequest": {"key": (1, "bytes"), "value": (2, "bytes")},
    "RangeRequest": {
        "key": (1, "bytes"),
        "range_end": (2, "bytes"),
        "limit": (3, "int64"),
        "serializable": (7, "bool"),
    },
    "RangeResponse": {"kvs": (2, "*KeyValue"), "more": (3, "bool")},
    "RangeStreamResponse": {"range_response": (1, "RangeResponse")},
    "RequestOp": {"request_put": (2, "PutRequest")},
    "TxnRequest": {"success": (2, "*RequestOp")},
    "WatchCreateRequest": {"key": (1, "bytes"), "range_end": (2, "bytes")},
    "WatchRequest": {"create_request": (1, "WatchCreateRequest")},
    "Event": {"kv": (2, "KeyValue")},
    "WatchResponse": {
        "created": (3, "bool"),
        "canceled": (4, "bool"),
        "cancel_reason": (6, "string"),
        "events": (11, "*Event"),
    },
    "StatusRequest": {},
    "StatusResponse": {"header": (1, "ResponseHeader"), "leader": (4, "uint64")},
}


def _classes() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(name=f"{_PACKAGE}.proto", package=_PACKAGE, syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            added = message.field.add(name=field, number=number)
            added.label = added.LABEL_REPEATED if kind.startswith("*") else added.LABEL_OPTIONAL
            plain = kind.lstrip("*")
            if plain[0].isupper():
                added.type = added.TYPE_MESSAGE
                added.type_name = f".{_PACKAGE}.{plain}"
            else:
                added.type = added.Type.Value(f"TYPE_{plain.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))
        for name in _MESSAGES
    }


_CLASS = _classes()
PutRequest = _CLASS["PutRequest"]
RangeRequest = _CLASS["RangeRequest"]
RangeResponse = _CLASS["RangeResponse"]
RangeStreamResponse = _CLASS["RangeStreamResponse"]
RequestOp = _CLASS["RequestOp"]
StatusRequest = _CLASS["StatusRequest"]
StatusResponse = _CLASS["StatusResponse"]
TxnRequest = _CLASS["TxnRequest"]
WatchCreateRequest = _CLASS["WatchCreateRequest"]
WatchRequest = _CLASS["WatchRequest"]
WatchResponse = _CLASS["WatchResponse"]
