"""The public names: a change here is a change for every user."""

from __future__ import annotations

import subprocess
import sys

import holdfast

PUBLIC = [
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


def test_the_names() -> None:
    assert sorted(holdfast.__all__) == sorted(PUBLIC)
    for name in PUBLIC:
        assert getattr(holdfast, name) is not None
    assert set(PUBLIC) <= set(dir(holdfast))
    assert holdfast.errors.HoldfastError is holdfast.HoldfastError
    assert callable(holdfast.testing.embedded)


def test_what_a_client_can_do() -> None:
    methods = {name for name in dir(holdfast.Client) if not name.startswith("_")}
    assert methods == {
        "close",
        "create_group",
        "create_topic",
        "dead_letters",
        "delete_group",
        "delete_topic",
        "digest",
        "discard_dead_letters",
        "drain",
        "flush",
        "join",
        "group",
        "include",
        "groups",
        "lag",
        "publish",
        "publish_many",
        "put_group",
        "replay",
        "redrive_dead_letters",
        "replay_batches",
        "restore",
        "retries",
        "run",
        "seek_group",
        "send",
        "start",
        "status",
        "stop",
        "statuses",
        "subscribe",
        "subscriber",
        "topic",
        "topics",
        "transaction",
        "update_topic",
    }
    assert methods - {"start", "drain"} <= {
        name for name in dir(holdfast.SyncClient) if not name.startswith("_")
    }


def test_brokers_do_not_pay_for_the_client() -> None:
    code = "import sys, holdfast.errors; sys.exit('grpc' in sys.modules or 'asyncio' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_unknown_name() -> None:
    assert not hasattr(holdfast, "nonsense")
