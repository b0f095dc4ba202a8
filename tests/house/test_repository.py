"""The repository's own rules."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.mark.parametrize(
    "folder", ["storage", "cluster", "rpc", "proto", "holdfast", "chaos", "tests", "benchmarks"]
)
def test_folder_says_what_it_is(folder: str) -> None:
    text = (ROOT / folder / "DESIGN.md").read_text()
    assert len(text) > 200, f"{folder}/DESIGN.md says too little"


@pytest.mark.parametrize("name", ["storage", "cluster", "rpc", "chaos"])
def test_package_links_are_relative(name: str) -> None:
    link = ROOT / "holdfast" / name
    assert link.is_symlink()
    assert str(link.readlink()) == f"../{name}"


def test_every_direct_dependency_is_pinned_within_its_range() -> None:
    pins = dict(
        line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line
    )
    versions = {_canonical(name): Version(version) for name, version in pins.items()}
    wanted = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]
    for requirement in map(Requirement, wanted):
        assert versions[_canonical(requirement.name)] in requirement.specifier, requirement


def test_consensus_library_is_the_audited_version() -> None:
    assert "pysyncobj==0.3.17" in PROJECT["dependencies"]


def test_changelog_has_a_place_for_the_next_change() -> None:
    assert "## [Unreleased]" in (ROOT / "CHANGELOG.md").read_text()


def test_licence_is_the_one_declared() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert PROJECT["license"] == "Apache-2.0"
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_make_help_lists_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert phony
    documented = set(re.findall(r"^([a-z-]+):.*## ", makefile, re.MULTILINE))
    assert documented == set(phony[1].split())


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
