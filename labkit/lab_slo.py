"""
Objectives in the lab: their rules in the Prometheus that runs, and a month of what those rules would have recorded.

    lab.slo.load()            the shop's objectives: rules in force, their past written
    lab.slo.report()          how much of each budget is left
    lab.slo.counts(slo)       good and total requests per minute, thirty days back
    lab.slo.unload()          the rules are gone; what was recorded stays

Rules are not part of a lab that starts: nobody should be paged by objectives that nobody has chosen yet. `reset` leaves
loaded rules in force, since it mends the shop and not the monitoring; `down` ends them.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from labkit.errors import ConfigInvalid
from labkit.settings import files_root
from labkit.shop.history import History, load_labels
from labkit.slo.model import Policy, Slo
from labkit.stack.download import write_atomically
from labkit.stack.prometheus_config import PrometheusConfig

if TYPE_CHECKING:
    import pandas as pd

    from labkit.slo.report import Report
    from labkit.slo.source import PrometheusSource

__all__ = ["Loaded", "SloRoom", "shop_specification"]

_HOW_PAST = "The rules were taken out again; what was written of the past so far stays, and a new `load` completes it."


def shop_specification() -> Path:
    """The file with the shop's own objectives."""
    return files_root() / "infra" / "slo" / "shop.yaml"


@dataclass(frozen=True, slots=True)
class Loaded:
    """
    What `load` did.

    Attributes:
        slos: the objectives whose rules are in force.
        rules: the text of the rule file.
        samples: how many samples of their past were written; 0 when all of it was there.
        seconds: how long it took.
    """

    slos: tuple[Slo, ...]
    rules: str
    samples: int
    seconds: float

    def __str__(self) -> str:
        names = ", ".join(slo.name for slo in self.slos) or "none"
        return f"objectives in force: {names}; {self.samples:,} samples of their past written in {self.seconds:.1f} s"


class SloRoom:
    """
    The objectives of one lab.

    Args:
        config: what the lab's Prometheus reads.
        seed: of its past.
        now: the lab's clock.
        alertmanager_url: where alerts of rules that are gone are ended; None if the lab has no Alertmanager.
    """

    def __init__(
        self,
        config: PrometheusConfig,
        seed: int,
        now: Callable[[], datetime],
        alertmanager_url: str | None = None,
    ) -> None:
        self._config, self._seed, self._now = config, seed, now
        self._alertmanager_url = alertmanager_url
        self._slos: tuple[Slo, ...] | None = None
        self._policies: Mapping[str, Policy] = {}

    @property
    def source(self) -> PrometheusSource:
        """The lab's Prometheus as a source of counts."""
        from labkit.slo.source import PrometheusSource  # noqa: PLC0415  (pandas takes half a second)

        return PrometheusSource(self._config.url)

    @property
    def slos(self) -> tuple[Slo, ...]:
        """The objectives that were loaded last here, or else the shop's."""
        if self._slos is None:
            self._slos, self._policies = _read(None)
        return self._slos

    @property
    def loaded(self) -> bool:
        """Whether rules of objectives are in force, whoever loaded them."""
        return self._config.rules is not None

    def load(
        self, specs: Path | str | Sequence[Slo] | None = None, *, policies: Mapping[str, Policy] | None = None
    ) -> Loaded:
        """
        Put the rules of objectives in force, in the place of those before, and write the past of what they record.

        Args:
            specs: a specification file, or objectives; the shop's own if None.
            policies: alert policies of one's own by name, beside those of the file.

        Returns:
            What was done.  Loading the same again writes only what is missing.

        Raises:
            ConfigInvalid: the specification has mistakes, or Prometheus refuses the rules, or an objective of this
                name has a past here with another definition.  Everything is as it was.
            UnknownName: an objective names a policy that there is not; nothing was touched.
            NoData, QueryError: an indicator counts nothing in this lab, or nonsense; nothing was touched.
            RequestFailed: Prometheus did not take the past; the rules of before are in force again.
        """
        from labkit.slo import rules  # noqa: PLC0415

        began = time.monotonic()
        slos, own = _read(specs)
        all_policies = {**own, **(policies or {})}
        text = rules.generate(slos, all_policies)
        definitions = self._definitions(slos)
        frames = [self._missing(slo, all_policies) for slo in slos]
        with self._in_force(text):
            samples = self._write(frames)
            write_atomically(self._definitions_path, json.dumps(definitions, indent=1) + "\n")
        self.end_alerts(keep={slo.name for slo in slos})
        self._slos, self._policies = slos, all_policies
        return Loaded(slos, text, samples, time.monotonic() - began)

    def unload(self) -> bool:
        """
        Take the loaded rules out of force; returns whether there were any.  Twice is fine.

        Their alerts end.  What was recorded stays in Prometheus: it is the past.
        """
        self._slos = None
        if not self.loaded:
            return False
        self._config.put(None)
        self.end_alerts()
        return True

    def counts(self, slo: Slo | str) -> pd.DataFrame:
        """
        Good and total events of *slo* per minute, from the start of the seeded month up to now.

        Args:
            slo: an objective, or the name of a loaded one.

        Returns:
            A frame of counts (see `labkit.slo.counts`): exact in the seeded month, as Prometheus counts after it.

        Raises:
            UnknownName: no objective of this name is loaded.
            NoData, QueryError, RequestFailed: Prometheus cannot count it.
        """
        from labkit.lab_past import counts_of  # noqa: PLC0415

        return counts_of(self.get(slo) if isinstance(slo, str) else slo, self._past(), self.source, self._now())

    def get(self, name: str) -> Slo:
        """
        The loaded objective with this name.

        Raises:
            UnknownName: there is none; lists those there are.
        """
        from labkit.errors import UnknownName  # noqa: PLC0415

        found = {slo.name: slo for slo in self.slos}
        if name not in found:
            raise UnknownName("loaded objective", name, known=list(found))
        return found[name]

    def report(self, slos: Sequence[Slo] | None = None, *, windows_s: Iterable[int] = ()) -> Report:
        """
        The state of every objective now: those loaded last, or the shop's, unless others are given.

        Args:
            slos: other objectives.
            windows_s: further windows for burn rates, in seconds, as `ReleasePolicy.windows_s` names them.
        """
        from labkit.slo.policies import POLICIES  # noqa: PLC0415
        from labkit.slo.report import report  # noqa: PLC0415

        wanted = self.slos if slos is None else slos
        policies = {**POLICIES, **self._policies}
        return report(wanted, self.source, self._now(), policies=policies, windows_s=windows_s)

    @property
    def _data(self) -> Path:
        return self._config.run_dir / "data" / f"seed-{self._seed}"

    @property
    def _definitions_path(self) -> Path:
        # Beside the data that it speaks of: both go together.
        return self._data / "slo-recorded.json"

    def _past(self) -> History:
        from labkit.lab_past import past_of  # noqa: PLC0415

        labels = load_labels(self._data / "history.json")
        return past_of(labels["seed"], labels["end"], labels["days"])

    def _definitions(self, slos: Sequence[Slo]) -> dict[str, str]:
        """What each recorded objective means, with those of *slos*; refuses one that means something else by now."""
        path = self._definitions_path
        known: dict[str, str] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        mine = {f"{slo.service}/{slo.name}": _definition(slo) for slo in slos}
        changed = [name for name, text in mine.items() if known.get(name, text) != text]
        if changed:
            raise ConfigInvalid(
                "The objectives to load",
                problems=[f"{name} has a recorded past in this lab, made with another definition" for name in changed],
                how="What is recorded cannot be changed: give the changed objective another name. Nothing was touched.",
            )
        return known | mine

    def _missing(self, slo: Slo, policies: Mapping[str, Policy]) -> pd.DataFrame:
        from labkit.lab_past import missing  # noqa: PLC0415
        from labkit.slo.recorded import series  # noqa: PLC0415

        return missing(self._config.url, series(self.counts(slo), slo, policies))

    def _write(self, frames: Sequence[pd.DataFrame]) -> int:
        from labkit.lab_past import write  # noqa: PLC0415

        return write(self._config.url, frames, how=_HOW_PAST)

    def end_alerts(self, *, keep: Collection[str] = ()) -> None:
        """
        End the alerts of objectives other than *keep*.

        When a rule is gone, Prometheus says no more of its alert, and Alertmanager keeps it for minutes.
        """
        from labkit.observe.alertmanager import Alertmanager  # noqa: PLC0415

        if self._alertmanager_url is None:
            return
        alertmanager = Alertmanager(self._alertmanager_url)
        alerts = alertmanager.alerts()
        gone = alerts["labels"].map(lambda labels: labels.get("slo") not in {None, *keep}).astype(bool)
        alertmanager.end(alerts[gone])

    @contextmanager
    def _in_force(self, text: str) -> Iterator[None]:
        """
        Put the rules in force; while the block runs, Prometheus takes samples of the past too.

        When Prometheus refuses the rules, or the block fails, everything is as it was before.
        """
        before = self._config.rules
        with ExitStack() as undo:
            undo.callback(self._config.put, before)
            self._config.put(text, late_days=self._days_of_past())
            yield
            undo.pop_all()
        self._config.put(text)

    def _days_of_past(self) -> int:
        # Samples of a series without any are refused when they are over an hour older than the newest of the server,
        # unless a window for late ones is open. It is open only while the past is written.
        return (self._now() - self._past().start) // timedelta(days=1) + 2


def _read(specs: Path | str | Sequence[Slo] | None) -> tuple[tuple[Slo, ...], Mapping[str, Policy]]:
    """Objectives and the policies that come with them."""
    if specs is None or isinstance(specs, str | Path):
        from labkit.slo.spec import load_specs  # noqa: PLC0415

        found = load_specs(shop_specification() if specs is None else Path(specs))
        return found.slos, found.policies
    return tuple(specs), {}


def _definition(slo: Slo) -> str:
    """A few characters that differ when the recorded values of *slo* would."""
    queries = slo.sli.total_query("1h"), slo.sli.error_ratio("1h")
    meaning = repr((slo.objective, slo.window, slo.budgeting, queries))
    return hashlib.sha256(meaning.encode()).hexdigest()[:12]
