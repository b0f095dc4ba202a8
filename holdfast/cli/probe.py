"""Asking one broker how it is, without a client: for `up` and for the containers' health checks.

``python -m holdfast.cli.probe HOST:PORT`` exits 0 when the broker is serving.
"""

from __future__ import annotations

import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from holdfast.v1 import cluster_pb2, cluster_pb2_grpc

_PROBE_SECONDS = 3.0


def leader_of(address: str, timeout: float) -> str | None:
    """Node id of the leader a broker knows; None when it knows none or does not answer in time."""
    with grpc.insecure_channel(address) as channel:
        try:
            status = cluster_pb2_grpc.ClusterStub(channel).GetStatus(
                cluster_pb2.GetStatusRequest(), timeout=timeout, wait_for_ready=True
            )
        except grpc.RpcError:
            return None
    return status.leader_id or None


def serving(address: str, timeout: float = _PROBE_SECONDS) -> bool:
    """What the broker's standard health service says; False when it does not answer in time."""
    with grpc.insecure_channel(address) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(), timeout=timeout, wait_for_ready=True
            )
        except grpc.RpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


if __name__ == "__main__":
    sys.exit(0 if serving(sys.argv[1]) else 1)
