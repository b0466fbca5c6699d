"""A lab whose store of logs or traces could not be had says which, why, and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from labkit.errors import NotRunning
from labkit.lab import Lab
from labkit.settings import load_settings
from labkit.stack.state import State


@pytest.fixture
def bare_lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """A lab of profile jaeger-opensearch that came up on a machine without Java and without Jaeger."""
    settings = load_settings({"run_dir": tmp_path, "profile": "jaeger-opensearch"})
    state = State(
        lab_id="bare",
        run_dir=str(tmp_path),
        profile=settings.profile,
        seed=settings.seed,
        port_offset=0,
        created=0,
        ttl_s=60,
        owner_grace_s=60,
        phase="up",
        owner=None,
        supervisor=None,
        ports={"prometheus": {"http": 9090}},
        link_ports={},
        programs={},
        missing={"opensearch": "`labkit-opensearch` >=2.19,<3 is needed and could not be had:"},
    )
    monkeypatch.setattr(Lab, "alive", lambda _: True)
    return Lab(settings, state, started=False)


def test_asking_for_logs_without_opensearch_says_why(bare_lab: Lab) -> None:
    """The reason that the start gave, and the two ways out; not that some store is unknown."""
    with pytest.raises(NotRunning, match=r"no store of logs: .* could not be had\. `labkit doctor`.*profile core"):
        _ = bare_lab.logs


def test_asking_for_traces_without_jaeger_says_so(bare_lab: Lab) -> None:
    """Each store by itself."""
    with pytest.raises(NotRunning, match="no store of traces: jaeger is not part of it"):
        _ = bare_lab.traces
