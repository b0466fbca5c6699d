"""What a replica remembers over a restart: flags and the deployed version.  Faults are cured by a restart."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from time import process_time
from typing import Any

from labkit.errors import LabkitError
from labkit.shop.config import Config
from labkit.shop.faults import FaultSet
from labkit.shop.flags import FlagSet
from labkit.shop.logs import log
from labkit.shop.metrics import Telemetry

__all__ = ["Replica"]


@dataclass
class Replica:
    """One replica's configuration and everything about it that can be changed while it runs."""

    config: Config
    telemetry: Telemetry
    flags: FlagSet
    faults: FaultSet

    @classmethod
    def start(cls, config: Config) -> Replica:
        """A replica as configured, with the flags and the version it had before a restart."""
        replica = cls(config, Telemetry(config.version), FlagSet(config.service), FaultSet())
        replica._recall()
        replica.telemetry.tracing.connect(config, replica.telemetry, on=lambda: replica.flags.on("tracing"))
        return replica

    def deploy(self, version: str, *, actor: str, time: str) -> dict[str, str]:
        """
        Report *version* from now on, and append the change to the deploy log.

        Args:
            version: the new one.
            actor: who deploys.
            time: instant of the deploy, UTC, ISO 8601.

        Returns:
            The line of the deploy log.

        Raises:
            OSError: the deploy log cannot be written; the version is as before.
        """
        entry = {
            "time": time,
            "service": self.config.service,
            "instance": self.config.instance,
            "version": version,
            "previous": self.telemetry.version,
            "actor": actor,
        }
        if self.config.deploy_log:
            _append(self.config.deploy_log, entry)
        self.telemetry.version = version
        self.remember()
        log(logging.INFO, f"version {version} deployed", version=version, previous=entry["previous"], actor=actor)
        return entry

    def deploys(self) -> list[dict[str, str]]:
        """
        The lines of the deploy log that this replica writes to, in their order; a damaged one is left out.

        Raises:
            OSError: it cannot be read.
        """
        path = self.config.deploy_log
        if path is None or not path.is_file():
            return []
        return [entry for line in path.read_text(encoding="utf-8").splitlines() if (entry := _entry(line))]

    def reset(self, *, actor: str, time: str) -> None:
        """Faults gone, flags at their defaults, the version as started."""
        self.faults.undo_all()
        self.flags.restore_all()
        if self.telemetry.version != self.config.version:
            self.deploy(self.config.version, actor=actor, time=time)
        self.remember()

    def remember(self) -> None:
        """Write the state file whole or not at all; a disk that refuses costs memory of the state, not the service."""
        path = self.config.state_file
        if path is None:
            return
        state = {"version": self.telemetry.version, "flags": self.flags.changed()}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(".partial")
            partial.write_text(json.dumps(state), encoding="utf-8")
            partial.replace(path)
        except OSError as error:
            log(logging.WARNING, "the state file could not be written", path=path, reason=str(error))

    def describe(self) -> dict[str, Any]:
        """The whole state as JSON."""
        return {
            "service": self.config.service,
            "instance": self.config.instance,
            "version": self.telemetry.version,
            "started_version": self.config.version,
            "pid": os.getpid(),
            "cpu_s": round(process_time(), 6),
            "flags": self.flags.describe(),
            "faults": self.faults.describe(),
        }

    def _recall(self) -> None:
        path = self.config.state_file
        if path is None or not path.is_file():
            return
        try:
            state = json.loads(path.read_text(encoding="utf-8"))
            version, flags = str(state["version"]), dict(state["flags"])
        except (ValueError, KeyError, TypeError, OSError) as error:
            log(logging.WARNING, "the state file is not readable and is ignored", path=path, reason=str(error))
            return
        self.telemetry.version = version
        for name, value in flags.items():
            # A flag that a later version no longer has must not keep the service from starting.
            with contextlib.suppress(LabkitError):
                self.flags.set(name, value)


def _append(path: Path, entry: dict[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # One write of one short line in append mode: replicas that deploy together do not mix their lines.
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(entry) + "\n")


def _entry(line: str) -> dict[str, str] | None:
    with contextlib.suppress(json.JSONDecodeError):
        found = json.loads(line)
        return found if isinstance(found, dict) else None
    return None
