"""A client in another language: Node.js, from the .proto files alone."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from holdfast.chaos.processes import LocalCluster

EXAMPLE = Path(__file__).parents[2] / "examples" / "node"


@pytest.fixture(scope="module")
def node_modules(tmp_path_factory: pytest.TempPathFactory) -> None:
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("node and npm are not installed: the Node.js client is NOT tested here")
    if not (EXAMPLE / "node_modules" / "@grpc" / "grpc-js").is_dir():
        subprocess.run(
            ["npm", "ci", "--ignore-scripts"], cwd=EXAMPLE, check=True, capture_output=True, timeout=300
        )


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("node_modules")
def test_node_publishes_consumes_with_acks_and_replays(tmp_path: Path) -> None:
    with LocalCluster(tmp_path) as cluster:
        leader = cluster.wait_leader()
        follower = next(n for n in cluster.brokers if n != leader)
        for round_number, node in enumerate((leader, follower)):
            ran = subprocess.run(
                ["node", "holdfast.js", cluster.brokers[node].client_address,
                 f"from-node-{round_number}", "node-group", "30"],
                cwd=EXAMPLE, capture_output=True, text=True, timeout=60, check=False,
            )  # fmt: skip
            assert ran.returncode == 0, ran.stderr
            seen = json.loads(ran.stdout)
            expected = sorted(f"node-{i}" for i in range(30))
            assert seen["acks"] == 30
            assert seen["consumed"] == expected
            assert seen["committed"] == 30
            assert seen["replayed"] == expected
            assert seen["headers"] is True
            assert seen["refusal"] == "NOT_FOUND"
            assert seen["node"] == node
