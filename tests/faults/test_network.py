"""Faults 24 and 25: names and strangers."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.cluster.ports import PeerConnected
from holdfast.v1 import peer_pb2

from .ours_network import CLUSTER, hello, our_sources, ours_24, ours_25
from .stock import Lab
from .stock_network import Payload, stock_24, stock_25, stock_frame


def test_fault_24(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name server that does not answer stalls the tick, and heartbeats with it."""
    stock = stock_24(lab)
    assert stock.longest_tick_seconds > stock.election_timeout_seconds

    ours = ours_24(monkeypatch, lab.clock)
    assert ours.longest_tick_seconds < ours.election_timeout_seconds


def test_fault_25(lab: Lab, tmp_path: Path) -> None:
    """Peers are unpickled before they are known, and strangers are handed the log."""
    stock = stock_25(lab)
    assert stock.code_ran
    assert stock.log_handed_out == ["a secret"]

    marker = tmp_path / "ours"
    for noise in (stock_frame(Payload(str(marker))), stock_frame("readonly")):
        answer, events = ours_25(lambda noise=noise: noise)  # type: ignore[misc]
        assert (answer, events) == (b"", [])
    assert not marker.exists()
    # A member's name is not enough, nor is the cluster's.
    for sent in (hello(cluster="another"), hello(node="stranger")):
        assert ours_25(lambda sent=sent: sent) == (b"", [])  # type: ignore[misc]
    answer, events = ours_25(hello)
    assert peer_pb2.PeerFrame.FromString(answer).hello.cluster_id == CLUSTER
    assert events[:1] == [PeerConnected("0", "")], "a member is let in"

    sources = our_sources()
    assert len(sources) > 30
    picklers = {"pickle", "cPickle", "shelve", "dill", "marshal", "cloudpickle"}
    assert [path for path, names in sources.items() if names & picklers] == []
