"""Generate ``holdfast/v1`` from ``proto/``; with ``--check``, only compare.

The generated code is kept in the repository so that an install needs no
protoc; ``make check`` fails when it is not what ``proto/`` generates.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = Path("holdfast/v1")


def generate(out: Path) -> None:
    """Write the generated modules below ``out``.

    Raises:
        SystemExit: protoc refused a file; it has said why.
    """
    sources = sorted((ROOT / "proto" / PACKAGE).glob("*.proto"))
    with_services = [path for path in sources if "\nservice " in path.read_text()]
    include = [f"-I{ROOT / 'proto'}", f"-I{files('grpc_tools') / '_proto'}"]
    for arguments, inputs in (
        ([f"--python_out={out}", f"--pyi_out={out}"], sources),
        ([f"--grpc_python_out={out}"], with_services),
    ):
        code = protoc.main(["protoc", *include, *arguments, *map(str, inputs)])
        if code:
            raise SystemExit(code)


def _contents(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (root / PACKAGE).glob("*_pb2*.py*")}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="compare instead of writing; exit 1 when stale")
    check = parser.parse_args().check
    with tempfile.TemporaryDirectory() as scratch:
        generate(Path(scratch))
        fresh, kept = _contents(Path(scratch)), _contents(ROOT)
    stale = sorted(name for name in fresh.keys() | kept.keys() if fresh.get(name) != kept.get(name))
    if check:
        if stale:
            print(f"generated code is stale: {', '.join(stale)}; run `make proto`", file=sys.stderr)
        return 1 if stale else 0
    for name in stale:
        target = ROOT / PACKAGE / name
        if name in fresh:
            target.write_bytes(fresh[name])
        else:
            target.unlink()
    print(f"{PACKAGE}: {len(stale)} of {len(fresh)} files changed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
