"""Holdfast: a fault-tolerant event bus.

::

    import asyncio, holdfast

    async def main():
        async with holdfast.connect("127.0.0.1:7450") as bus:
            await bus.create_topic("orders", partitions=3, if_not_exists=True)
            await bus.publish("orders", b"paid 12.30", key="customer-7")
            async for record in bus.replay("orders"):
                print(record.offset, record.key, record.value)

    asyncio.run(main())
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from holdfast.client.client import Client, connect
    from holdfast.client.consumer import Subscription
    from holdfast.client.dead_letters import DeadLetter, DeadLetterFilter, DiscardResult, RedriveResult
    from holdfast.client.events import (
        AckRefused,
        Assigned,
        Committed,
        Disconnected,
        Lost,
        Paused,
        Revoking,
        SubscriptionEvent,
        Welcomed,
    )
    from holdfast.client.groups import (
        GroupDefinition,
        GroupInfo,
        GroupMember,
        GroupPartition,
        RetryingRecord,
    )
    from holdfast.client.handlers.breaker import Breaker
    from holdfast.client.handlers.context import Context
    from holdfast.client.handlers.errors import ParkRecord, RejectRecord, RetryLater
    from holdfast.client.handlers.subscriber import Handler, subscriber
    from holdfast.client.lag import PartitionLag
    from holdfast.client.membership import Membership
    from holdfast.client.options import ClientOptions
    from holdfast.client.retry import Retry
    from holdfast.client.sync import SyncClient, SyncSubscription, connect_sync
    from holdfast.client.sync_membership import SyncMembership
    from holdfast.client.sync_transaction import SyncTransaction
    from holdfast.client.transaction import Transaction, TransactionResult
    from holdfast.client.types import (
        Ack,
        Batch,
        BatchAck,
        ClusterInfo,
        MemberInfo,
        PartitionDigest,
        PartitionInfo,
        PublishSummary,
        Record,
        TopicInfo,
    )
    from holdfast.errors import HoldfastError

#: The public names and where they live. Loaded when first asked for, so that
#: brokers and command lines that use none of them do not pay for them.
_HOMES = {
    "client.client": ("Client", "connect"),
    "client.consumer": ("Subscription",),
    "client.dead_letters": ("DeadLetter", "DeadLetterFilter", "DiscardResult", "RedriveResult"),
    "client.events": (
        "AckRefused",
        "Assigned",
        "Committed",
        "Disconnected",
        "Lost",
        "Paused",
        "Revoking",
        "SubscriptionEvent",
        "Welcomed",
    ),
    "client.groups": (
        "GroupDefinition",
        "GroupInfo",
        "GroupMember",
        "GroupPartition",
        "RetryingRecord",
    ),
    "client.lag": ("PartitionLag",),
    "client.handlers.breaker": ("Breaker",),
    "client.handlers.context": ("Context",),
    "client.handlers.errors": (
        "ParkRecord",
        "RejectRecord",
        "RetryLater",
    ),
    "client.handlers.subscriber": (
        "Handler",
        "subscriber",
    ),
    "client.membership": ("Membership",),
    "client.options": ("ClientOptions",),
    "client.retry": ("Retry",),
    "client.sync": ("SyncClient", "SyncSubscription", "connect_sync"),
    "client.sync_transaction": ("SyncTransaction",),
    "client.transaction": ("Transaction", "TransactionResult"),
    "client.sync_membership": ("SyncMembership",),
    "client.types": (
        "Ack",
        "Batch",
        "BatchAck",
        "ClusterInfo",
        "MemberInfo",
        "PartitionDigest",
        "PartitionInfo",
        "PublishSummary",
        "Record",
        "TopicInfo",
    ),
    "errors": ("HoldfastError",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}
_MODULES = ("errors", "testing")

__all__ = [
    "Ack",
    "AckRefused",
    "Assigned",
    "Batch",
    "BatchAck",
    "Breaker",
    "Client",
    "ClientOptions",
    "ClusterInfo",
    "Committed",
    "Context",
    "DeadLetter",
    "DeadLetterFilter",
    "DiscardResult",
    "Disconnected",
    "GroupDefinition",
    "GroupInfo",
    "GroupMember",
    "GroupPartition",
    "Handler",
    "HoldfastError",
    "Lost",
    "MemberInfo",
    "Membership",
    "ParkRecord",
    "PartitionDigest",
    "PartitionInfo",
    "PartitionLag",
    "Paused",
    "PublishSummary",
    "Record",
    "RedriveResult",
    "RejectRecord",
    "Retry",
    "RetryLater",
    "RetryingRecord",
    "Revoking",
    "Subscription",
    "SubscriptionEvent",
    "SyncClient",
    "SyncMembership",
    "SyncSubscription",
    "SyncTransaction",
    "TopicInfo",
    "Transaction",
    "TransactionResult",
    "Welcomed",
    "connect",
    "connect_sync",
    "subscriber",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"holdfast.{name}")
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'holdfast' has no attribute {name!r}")
    value = getattr(import_module(f"holdfast.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})
