"""The services of one node over its engine: the same in a broker process and in the simulator."""

from __future__ import annotations

import grpc

from holdfast.cluster.delivery.settings import DeliverySettings
from holdfast.cluster.ports import Clock, EventSink
from holdfast.rpc.admission import Admission
from holdfast.rpc.bridge import EngineBridge
from holdfast.rpc.duties import LeaderDuties
from holdfast.rpc.egress import Egress
from holdfast.rpc.scrubbing import Scrubbing
from holdfast.rpc.services import bus, cluster, group_lag, group_retries, groups, topics
from holdfast.rpc.services.bus_publish import PublishService
from holdfast.rpc.services.dead_letters import DeadLetterService
from holdfast.rpc.services.leader_call import LeaderCall
from holdfast.rpc.services.leader_channel import ChannelFactory, insecure_channel
from holdfast.rpc.services.publish_request import PublishEncoder
from holdfast.rpc.services.replay import ReplayService
from holdfast.rpc.services.subscribe import SubscribeService
from holdfast.rpc.services.topic_cache import TopicCache
from holdfast.rpc.services.transact import TransactService
from holdfast.rpc.settings import MIB, Settings
from holdfast.rpc.topology import Topology
from holdfast.storage.port import Store


class NodeServices:
    """EventBus, Topics, Groups and Cluster, and a leader's duties. To be made on the event loop they run on.

    Args:
        store: read in short snapshots.
        bridge: the engine's asyncio face.
        status: the engine's own view of itself.
        clock: the node's time.
        version: shown by ``GetStatus``.
        events: where events go; None: nowhere, and nothing is measured.
        connect: makes channels to other brokers.
    """

    def __init__(
        self,
        settings: Settings,
        topology: Topology,
        store: Store,
        bridge: EngineBridge,
        status: cluster.StatusSource,
        clock: Clock,
        version: str,
        *,
        events: EventSink | None = None,
        connect: ChannelFactory = insecure_channel,
    ) -> None:
        limits = settings.limits
        timeout = limits.default_deadline_ms / 1000
        cache = TopicCache(store, bridge)
        self.admission = Admission(limits.max_inflight_calls, limits.max_inflight_bytes)
        encoder = PublishEncoder(limits, clock)
        self.publish = PublishService(bridge, cache, encoder, self.admission, limits, events)
        #: Passes calls on to the leader.
        self.leader = LeaderCall(bridge, topology, connect)
        self.transact = TransactService(
            store, bridge, cache, encoder, self.admission, limits, self.leader, emit=events
        )
        bounds = DeliverySettings()
        egress = Egress(bounds.max_outgoing_bytes, bounds.max_outgoing_bytes_per_peer, bounds.stalled_after)
        self.replay = ReplayService(store, bridge, cache, emit=events, egress=egress)
        self.subscribe = SubscribeService(
            store, bridge, cache, topology, emit=events, connect=connect, egress=egress, clock=clock
        )
        self.transact.sessions = self.subscribe
        maintenance = settings.maintenance
        self.duties = LeaderDuties(
            store,
            bridge,
            clock,
            interval_s=maintenance.interval_ms / 1000,
            producer_idle_s=maintenance.producer_idle_ms / 1000,
        )
        #: For whoever runs on a real disk: started on its own.
        self.scrubbing = Scrubbing(store, bridge, clock, rate=maintenance.scrub_mib_per_s * MIB, emit=events)
        #: What a server registers.
        self.handlers: tuple[grpc.GenericRpcHandler[bytes, bytes], ...] = (
            bus.handlers(self.publish, self.replay, self.subscribe, self.transact),
            DeadLetterService(store, bridge, cache, egress, events).handlers(),
            topics.TopicsService(store, bridge, cache).handlers(timeout),
            groups.GroupsService(store, bridge, cache, clock, limits.max_record_bytes).handlers(timeout),
            group_retries.GroupRetriesService(store, bridge, clock).handlers(timeout),
            group_lag.GroupLagService(store, bridge, clock).handlers(timeout),
            cluster.ClusterService(store, bridge, status, cache, topology, version, clock).handlers(timeout),
        )
