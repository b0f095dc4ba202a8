"""Typed events and engine status in, OpenTelemetry metrics and spans out."""

from holdfast.rpc.telemetry.export import Telemetry, start
from holdfast.rpc.telemetry.gauges import BrokerGauges, FollowerLag, GroupLag, GroupMembers, GroupsMoment

__all__ = ["BrokerGauges", "FollowerLag", "GroupLag", "GroupMembers", "GroupsMoment", "Telemetry", "start"]
