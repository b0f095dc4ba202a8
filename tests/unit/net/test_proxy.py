"""The proxy cuts one direction silently, and delivers what waited when it is healed."""

from __future__ import annotations

import socket

import pytest

from holdfast.chaos.net.proxy import ProxyNet


def test_a_cut_is_silent_one_way_and_loses_nothing() -> None:
    net = ProxyNet(["n1", "n2"])
    try:
        host, port = net.places["n2"].env["HOLDFAST_PEER_LISTEN"].split(":")
        relay = net.places["n1"].env["HOLDFAST_MEMBERS"].rsplit("/", 1)[1].split(":")
        with (
            socket.create_server((host, int(port))) as server,
            socket.create_connection((relay[0], int(relay[1]))) as near,
        ):
            far, _ = server.accept()
            with far:
                for end in (near, far):
                    end.settimeout(5.0)
                near.sendall(b"one")
                assert far.recv(3) == b"one"
                net.cut("n1", "n2", one_way=True)
                near.sendall(b"two")
                far.sendall(b"back")
                assert near.recv(4) == b"back"
                far.settimeout(0.1)
                with pytest.raises(TimeoutError):
                    far.recv(3)
                net.heal("n1", "n2")
                far.settimeout(5.0)
                assert far.recv(3) == b"two"
    finally:
        net.close()
