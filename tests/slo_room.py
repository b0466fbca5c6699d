"""Objectives on a Prometheus of its own, started as a lab starts its own: seeded month first, then the full jobs."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from labkit._http import get_json
from labkit._time import utc_now
from labkit.lab_slo import SloRoom
from labkit.lab_start import hooks
from labkit.settings import load_settings
from labkit.stack.local import LocalRuntime
from labkit.stack.progress import silent
from labkit.stack.prometheus_config import PrometheusConfig
from tests.prometheus_process import NO_JOBS, PrometheusProcess


class RoomProcess:
    """A Prometheus below *folder*, and the room of objectives that works on it."""

    def __init__(self, prometheus: Path, folder: Path) -> None:
        self.server = PrometheusProcess(prometheus, folder / "etc" / "prometheus")
        self.room = SloRoom(PrometheusConfig(self.server.url, folder), 7, utc_now)
        self._begin = hooks(LocalRuntime(load_settings({"seed": 7, "run_dir": folder})), silent)
        self._layout: Any = SimpleNamespace(
            address=lambda _: f"127.0.0.1:{self.server.port}",
            data=lambda name: folder / "data" / "seed-7" / name,
        )

    def start(self) -> None:
        """What `up` does of it: the past, then the configuration with rules and jobs."""
        self.server.start()
        folder = self.server.folder
        (folder / "rules").mkdir(exist_ok=True)
        itself = f'[{{job_name: itself, static_configs: [{{targets: ["127.0.0.1:{self.server.port}"]}}]}}]'
        (folder / "full.yml").write_text(f'{NO_JOBS}rule_files: ["{folder}/rules/*.yml"]\nscrape_configs: {itself}\n')
        self._begin.after["prometheus"](self._layout)
        assert self._begin.finish
        self._begin.finish(self._layout)

    def groups(self) -> list[dict[str, Any]]:
        """The groups of rules in force."""
        found: list[dict[str, Any]] = get_json(f"{self.server.url}/api/v1/rules")["data"]["groups"]
        return found


def check_restart(prometheus: Path, folder: Path) -> None:
    """Load, stop, start: no rules, their past is there, and loading again completes it without writing it twice."""
    lab = RoomProcess(prometheus, folder)
    slos = [slo for slo in lab.room.slos if slo.name == "visit-availability"]
    try:
        lab.start()
        first = lab.room.load(slos)
        lab.server.end()
        lab.start()

        assert not lab.room.loaded
        assert lab.groups() == []
        query = {"query": "count_over_time(slo:sli_error:ratio_rate1h[31d])"}
        (there,) = get_json(f"{lab.server.url}/api/v1/query", params=query)["data"]["result"]
        assert int(there["value"][1]) >= 30 * 288 - 2
        assert first.samples > 80_000
        assert lab.room.load(slos).samples < 500
        assert len(lab.groups()) == 2
    finally:
        lab.server.end()
