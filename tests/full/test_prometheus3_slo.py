"""Objectives on the release that users download: their rules, their unit tests and their past on Prometheus 3."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from labkit.settings import files_root
from tests.slo_room import check_restart

pytestmark = [pytest.mark.full, pytest.mark.live, pytest.mark.timeout(1800)]


def test_the_generated_tests_pass_there_too(program3: Callable[[str], Path]) -> None:
    """The shop's rules and their unit tests: left-open ranges change no ratio of an even flow, and no alert."""
    done = subprocess.run(
        [program3("promtool"), "test", "rules", "rules.test.yml"],
        cwd=files_root() / "infra" / "slo", capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout + done.stderr


def test_the_past_can_be_written_into_a_running_server(program3: Callable[[str], Path], tmp_path: Path) -> None:
    """The window for late samples opens and shuts, a restart ends the rules and keeps the past."""
    check_restart(program3("prometheus"), tmp_path)
