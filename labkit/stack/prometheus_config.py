"""
What the Prometheus of a lab reads, and how it is made to read it again.

The files lie in the run directory, `etc/prometheus`: `full.yml` as it was laid out, `prometheus.yml` in force, and
`rules/`.  Rules of objectives are loaded while the lab runs; they stand in a file of their own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from labkit._http import request
from labkit.errors import ConfigInvalid, RequestFailed
from labkit.stack.download import write_atomically

__all__ = ["LOADED_RULES", "PrometheusConfig"]

LOADED_RULES = "prometheus/rules/slo.yml"
"""Below `etc`: rules that were loaded into a running lab; the next start is without them."""

_RELOAD_TIMEOUT_S = 30
_HOW = "`labkit status` says whether Prometheus runs."
_LOG_TAIL = 8000


class PrometheusConfig:
    """
    The configuration of the Prometheus of one lab that runs as a process here.

    Args:
        url: of Prometheus.
        run_dir: of the lab.
    """

    def __init__(self, url: str, run_dir: Path) -> None:
        self.url = url
        self.run_dir = run_dir
        self.folder = run_dir / "etc" / "prometheus"

    @property
    def rules(self) -> str | None:
        """The rules that were loaded into the running lab; None if there are none."""
        return self._loaded.read_text(encoding="utf-8") if self._loaded.exists() else None

    def put(self, rules: str | None, *, late_days: int = 0) -> None:
        """
        Have *rules* in force beside those of `infra/`, or none, in the place of those loaded before.

        Args:
            rules: the text of a rule file.
            late_days: how old samples may be that Prometheus takes although it has newer ones, in days.

        Raises:
            ConfigInvalid: Prometheus refuses the configuration; carries what it said of it.  The files stay as they
                were given: put back what was there before.
            RequestFailed: Prometheus does not answer.
        """
        if rules is None:
            self._loaded.unlink(missing_ok=True)
        else:
            write_atomically(self._loaded, rules, mode=0o600)
        text = (self.folder / "full.yml").read_text(encoding="utf-8")
        if late_days:
            config: dict[str, Any] = yaml.safe_load(text)
            config["storage"] = {"tsdb": {"out_of_order_time_window": f"{late_days}d"}}
            text = yaml.safe_dump(config, sort_keys=False)
        write_atomically(self.folder / "prometheus.yml", text, mode=0o600)
        mark = self._log_mark()
        try:
            self._publish()
        except RequestFailed as error:
            if error.status is None:
                raise
            raise ConfigInvalid(
                "The rules for Prometheus",
                problems=_complaints(self._log_since(mark)) or [error.reason],
                how="Everything is as it was. Mend the specification where the message points.",
            ) from error

    @property
    def _loaded(self) -> Path:
        return self.run_dir / "etc" / LOADED_RULES

    def _publish(self) -> None:
        """Bring the files to Prometheus and have it read them; RequestFailed with a status when it refuses them."""
        request("POST", f"{self.url}/-/reload", timeout_s=_RELOAD_TIMEOUT_S, how=_HOW)

    def _log_mark(self) -> float:
        """Where Prometheus' log ends now."""
        log = self.run_dir / "log" / "prometheus.log"
        return log.stat().st_size if log.exists() else 0

    def _log_since(self, mark: float) -> list[str]:
        """What Prometheus wrote since the log ended at *mark*; the last of it if it is long."""
        log = self.run_dir / "log" / "prometheus.log"
        if not log.exists():
            return []
        with log.open("rb") as file:
            file.seek(max(int(mark), log.stat().st_size - _LOG_TAIL))
            return file.read().decode("utf-8", errors="replace").splitlines()


def _complaints(lines: list[str]) -> list[str]:
    """What Prometheus has logged about loaded rules, whose file is `slo.` something in every runtime."""
    return [line.partition("err=")[2].strip('"') for line in lines if "err=" in line and "/slo." in line]
