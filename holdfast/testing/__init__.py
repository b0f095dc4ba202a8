"""For tests of programs that use Holdfast.

``TestBus`` runs handlers in memory, in virtual time. ``embedded`` is a real
broker inside the test's process: the same code as in production, fsync
included, gone when the block ends.
"""

from __future__ import annotations

from holdfast.testing.bus import TestBus
from holdfast.testing.clock import VirtualClock
from holdfast.testing.embedded import embedded, embedded_broker

__all__ = ["TestBus", "VirtualClock", "embedded", "embedded_broker"]
