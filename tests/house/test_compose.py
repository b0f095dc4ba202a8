"""The containers' files agree with each other and with the settings; without an engine the drill says so."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from holdfast.cli.options import DEFAULT_ENDPOINTS
from holdfast.rpc import settings

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = (ROOT / "docker-compose.yml").read_text()
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def test_drill_says_clearly_that_there_is_no_engine(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "holdfast.chaos.compose_test"],
        env={name: value for name, value in os.environ.items() if name != "DOCKER_HOST"}
        | {"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "no Docker engine is reachable" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_settings_in_the_containers_are_valid() -> None:
    image = dict(re.findall(r"(HOLDFAST_\w+)=(\S+?)(?: \\)?$", DOCKERFILE, re.MULTILINE))
    shared = dict(re.findall(r"^  (HOLDFAST_\w+): (.+)$", COMPOSE, re.MULTILINE))
    nodes = re.findall(r"^      HOLDFAST_NODE_ID: (\w+)$", COMPOSE, re.MULTILINE)
    assert nodes == ["n1", "n2", "n3"]
    for node in nodes:
        loaded = settings.load(env=image | shared | {"HOLDFAST_NODE_ID": node})
        assert set(loaded.members) == set(nodes)
        assert loaded.members[node].client == f"{node}:{loaded.client_listen_address.port}"
        assert loaded.members[node].peer == f"{node}:{loaded.peer_listen_address.port}"


def test_published_ports_are_those_the_command_line_tries() -> None:
    published = re.findall(r'"127\.0\.0\.1:\$\{N\d_PORT:-(\d+)\}:7450"', COMPOSE)
    assert [f"127.0.0.1:{port}" for port in published] == DEFAULT_ENDPOINTS.split(",")
