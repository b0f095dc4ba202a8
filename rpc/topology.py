"""Who is in the cluster and where: what this node tells clients and peers."""

from __future__ import annotations

from holdfast.rpc.settings import Settings


class Topology:
    """Addresses of all voters. This node's own are set once its ports are known."""

    def __init__(self, settings: Settings) -> None:
        self.cluster_id = settings.cluster_id
        self.node_id = settings.node_id
        self._client = {node: member.client for node, member in settings.members.items()}
        self._peer = {node: member.peer for node, member in settings.members.items()}
        self._client.setdefault(self.node_id, settings.advertise or settings.listen)
        if settings.advertise:
            self._client[self.node_id] = settings.advertise
        if settings.peer_advertise:
            self._peer[self.node_id] = settings.peer_advertise
        self.node_ids = tuple(sorted(self._client))

    def client_address(self, node_id: str | None) -> str | None:
        """host:port for clients of that node; None for one that is not known."""
        return None if node_id is None else self._client.get(node_id)

    def peer_address(self, node_id: str) -> str | None:
        """host:port for other brokers."""
        return self._peer.get(node_id)

    def set_own_client_address(self, address: str) -> None:
        """The port is known once it is bound."""
        self._client[self.node_id] = address

    def set_own_peer_address(self, address: str) -> None:
        self._peer[self.node_id] = address
