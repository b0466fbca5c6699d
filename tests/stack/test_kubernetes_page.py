"""docs/kubernetes.md tells what is so: sizes, commands, and every component in the picture."""

from __future__ import annotations

import re

import pytest
from typer.testing import CliRunner

from labkit.cli import app
from labkit.settings import OVERLAYS, PROFILES, SETTINGS, files_root
from labkit.stack.cluster_layout import cluster_components
from labkit.stack.doctor_cluster import NODE_MIB
from labkit.stack.manifests import static_requests

DOCS = files_root() / "docs"
PAGE = (DOCS / "kubernetes.md").read_text(encoding="utf-8")
README = (files_root() / "README.md").read_text(encoding="utf-8")


def shown() -> list[list[str]]:
    """The words of every `labkit` command in the blocks of the page, comments left out."""
    blocks = re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    return [line[2:].partition("#")[0].split()[1:] for line in lines if line.startswith("$ labkit ")]


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_sizes_are_those_of_the_manifests(overlay: str, profile: str) -> None:
    """As the doctor prints them."""
    asked = static_requests(overlay, profile)
    row = (
        f"| {overlay}, {profile} | {asked.memory_mib:,.0f} MiB | {asked.limits_memory_mib:,.0f} MiB "
        f"| {asked.cpu_m / 1000:.2f} | {asked.volumes_mib / 1024:.1f} GiB | {asked.pods} |"
    )

    assert row in PAGE, row


def test_every_command_and_option_exists() -> None:
    """What is typed from the page is known to the command line."""
    runner = CliRunner()
    for command, *rest in shown():
        said = runner.invoke(app, [command, "--help"], env={"COLUMNS": "200"})
        assert said.exit_code == 0, command
        assert [word for word in rest if word.startswith("--") and word not in said.output] == []
    assert len(shown()) > 6


def test_every_setting_that_is_named_exists() -> None:
    """Of the page and the README."""
    named = set(re.findall(r"LABKIT_[A-Z_]+", PAGE + README))

    assert named <= {setting.env for setting in SETTINGS}


@pytest.mark.parametrize("profile", PROFILES)
def test_the_picture_shows_every_component(profile: str) -> None:
    """By the name that its pod begins with, and what is on this machine by its title."""
    drawing = (DOCS / "kubernetes.svg").read_text(encoding="utf-8")

    assert [name for name in cluster_components(profile) if name not in drawing] == []
    assert "Guard" in drawing
    assert "Forwarder" in drawing


def messages() -> list[str]:
    """The pieces of messages in the table of what fails, without the gaps that a lab fills in."""
    table = PAGE.partition("| the message says |")[2].partition("\n\n")[0]
    cells = [line.split("|")[1] for line in table.splitlines()[2:]]
    pieces = [piece.strip(" ,") for cell in cells for piece in re.split(r"…|;|\(.*?\)", cell)]
    return [piece for piece in pieces if piece]


def test_every_message_is_one_of_the_codes() -> None:
    """What the table quotes is what labkit says."""
    root = files_root() / "labkit"
    code = " ".join(path.read_text(encoding="utf-8") for path in [root / "errors.py", *(root / "stack").glob("*.py")])
    said = re.sub(r"\"\s+f?\"", "", code)

    assert [piece for piece in messages() if piece not in said] == []
    assert len(messages()) > 20


def test_a_node_needs_what_the_doctor_adds() -> None:
    """The page adds it to the sizes."""
    assert f"A node of kind needs {NODE_MIB} MiB" in PAGE
