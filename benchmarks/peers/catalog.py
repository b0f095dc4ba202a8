"""Every system by name, in the order of the table. A module is imported only when its system is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from benchmarks.peers.system import Client, Cluster

#: name → module with ``CLUSTERS`` and ``CLIENTS``: dictionaries from the name to the class.
SYSTEMS = {
    "holdfast": "benchmarks.peers.holdfast",
    "nats": "benchmarks.peers.nats",
    "nats-fsync": "benchmarks.peers.nats",
    "rabbitmq-quorum": "benchmarks.peers.rabbitmq",
    "rabbitmq-stream": "benchmarks.peers.rabbitmq",
    "rabbitmq-stream-sub": "benchmarks.peers.rabbitmq",
    "kafka": "benchmarks.peers.kafka",
    "kafka-fsync": "benchmarks.peers.kafka",
    "redis": "benchmarks.peers.redis",
    "etcd": "benchmarks.peers.etcd",
}

#: What the chart calls them, with what tells them apart.
LABELS = {
    "holdfast": "Holdfast",
    "nats": "NATS JetStream, no fsync",
    "nats-fsync": "NATS JetStream, fsync",
    "rabbitmq-quorum": "RabbitMQ quorum queue",
    "rabbitmq-stream": "RabbitMQ stream, no fsync",
    "rabbitmq-stream-sub": "… in sub-entries, no fsync",
    "kafka": "Kafka acks=all, no fsync",
    "kafka-fsync": "Kafka acks=all, fsync",
    "redis": "Redis WAIT 1, fsync on one",
    "etcd": "etcd",
}


def cluster_class(name: str) -> type[Cluster]:
    """The class that runs system ``name``.

    Raises KeyError for an unknown name, ImportError without its client.
    """
    found: type[Cluster] = importlib.import_module(SYSTEMS[name]).CLUSTERS[name]
    return found


def make_client(name: str, addresses: Sequence[str]) -> Client:
    """A client of system ``name``, not connected yet."""
    found: type[Client] = importlib.import_module(SYSTEMS[name]).CLIENTS[name]
    return found(addresses)
