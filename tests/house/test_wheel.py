"""The built wheel, installed into a clean environment, works.

The linked folders (holdfast/storage -> ../storage) must arrive as real
packages; some build tools drop them silently.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def _run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(list(map(str, command)), cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    # A copy of what is tracked: the build leaves files beside its sources, and another build may run.
    source = out / "source"
    source.mkdir()
    files = _run("git", "ls-files", "-z", cwd=ROOT).split("\0")
    for name in filter(None, files):
        origin, target = ROOT / name, source / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if origin.is_symlink():
            target.symlink_to(origin.readlink())
        elif origin.is_file():
            target.write_bytes(origin.read_bytes())
    _run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, source, cwd=out)
    (built,) = out.glob("*.whl")
    return built


def test_wheel_owns_one_name_and_holds_everything(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"holdfast"}
    for wanted in (
        "holdfast/py.typed",
        "holdfast/v1/bus_pb2.pyi",
        "holdfast/storage/port.py",
        "holdfast/cluster/ports.py",
        "holdfast/rpc/settings.py",
        "holdfast/cli/__main__.py",
    ):
        assert wanted in names
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_installed_wheel_works(wheel: Path, tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    _run(sys.executable, "-m", "venv", "--without-pip", venv, cwd=tmp_path)
    python = venv / "bin" / "python"
    _run(
        *(sys.executable, "-m", "pip", "--python", python, "install", "-q", "--disable-pip-version-check"),
        *("--no-deps", "--no-index", wheel),
        cwd=tmp_path,
    )
    # The dependencies are those of this environment. Its editable install of Holdfast stays out: it is
    # made visible by a .pth file, and those are read in site directories only, not along this path.
    site = Path(
        _run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path).strip()
    )
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")

    where = _run(python, "-c", _IMPORTS, cwd=tmp_path).split()
    assert where
    assert all(Path(path).is_relative_to(site) for path in where)
    assert _run(venv / "bin" / "holdfast", "--version", cwd=tmp_path).startswith("holdfast 0.")
    assert "serve" in _run(venv / "bin" / "holdfast", "--help", cwd=tmp_path)


_IMPORTS = """
import importlib
for name in ("errors", "records", "storage.port", "storage.lmdb_store", "cluster.ports", "cluster.engine",
             "rpc.settings", "rpc.broker", "client", "chaos", "v1.bus_pb2_grpc"):
    print(importlib.import_module(f"holdfast.{name}").__file__)
"""
