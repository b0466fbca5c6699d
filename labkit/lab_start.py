"""How a lab starts, and how one that runs is told from one that does not: what `lab` asks of the runtime."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from labkit._http import get_json
from labkit._time import format_duration, utc_now
from labkit._wait import wait_until
from labkit.errors import ConfigInvalid, RequestFailed
from labkit.settings import Settings, load_settings
from labkit.shop.client import ShopAdmin
from labkit.shop.history import WriteReport, ensure_history
from labkit.shop.links import apply_links
from labkit.stack.plan import Layout
from labkit.stack.progress import Progress, step
from labkit.stack.runtime import Hooks, Runtime
from labkit.stack.state import State

__all__ = [
    "hooks",
    "how_it_ended",
    "same_lab",
    "settings_of",
    "shop_admin",
    "wait_for_targets",
]

_TARGETS_TIMEOUT_S = 60
# How long a Prometheus may be out of reach while its past is written: a pod can be moved, a node be busy.
_BROKEN_S = 60


def hooks(runtime: Runtime, show: Progress) -> Hooks:
    """What belongs to a start beside the programs: the past, the links between services, the first scrapes."""
    seed = runtime.settings.seed

    def seed_history(layout: Layout) -> None:
        with step(show, "write thirty days of history into Prometheus") as now:
            url = f"http://{layout.address('prometheus')}"
            reports = _unbroken(lambda: ensure_history(url, seed=seed, labels_path=layout.data("history.json")))
            now.detail = f"{sum(r.samples for r in reports):,} samples"

    def connect_links(layout: Layout) -> None:
        api = f"http://{layout.address('toxiproxy')}"
        apply_links(api, layout.upstreams(), listen_host=layout.link_host, listen_offset=layout.link_offset)

    def begin(layout: Layout) -> None:
        """Fill the seconds since the history was written, give Prometheus its jobs, wait until all targets answer."""
        url = f"http://{layout.address('prometheus')}"
        with step(show, "let Prometheus observe the lab") as now:
            _unbroken(lambda: ensure_history(url, seed=seed))
            runtime.prometheus_config(url).put(None)
            wait_for_targets(url)
            now.detail = "every target is up"

    return Hooks(after={"prometheus": seed_history, "toxiproxy": connect_links}, finish=begin)


def _unbroken(write: Callable[[], list[WriteReport]]) -> list[WriteReport]:
    """What *write* wrote; when its connection breaks it is called again, and goes on where it stopped."""
    reports: list[WriteReport] = []

    def broken() -> str:
        try:
            reports.extend(write())
        except RequestFailed as error:
            if error.status is not None:
                raise
            return str(error)
        return ""

    wait_until(broken, "the past is written", timeout_s=_BROKEN_S, every_s=1, ready=lambda said: not said)
    return reports


def wait_for_targets(url: str) -> None:
    """Until the last scrape of every target of the Prometheus at *url* succeeded."""

    def waiting() -> list[str]:
        targets = get_json(f"{url}/api/v1/targets", params={"state": "active"})["data"]["activeTargets"]
        return [t["labels"]["instance"] for t in targets if t["health"] != "up"] if targets else ["any target"]

    wait_until(
        waiting,
        "every target is up",
        timeout_s=_TARGETS_TIMEOUT_S,
        ready=lambda names: not names,
        tolerate=(RequestFailed,),
    )


def shop_admin(run_dir: Path, ports: Mapping[str, Mapping[str, int]]) -> ShopAdmin:
    """The admin side of the shop of the lab in *run_dir*."""
    admin_urls = {name: f"http://127.0.0.1:{roles['admin']}" for name, roles in ports.items() if "admin" in roles}
    token = (run_dir / "secrets" / "admin_token").read_text(encoding="utf-8")
    return ShopAdmin(
        admin_urls,
        token,
        redis_url=f"redis://127.0.0.1:{ports['redis']['redis']}/0",
    )


def settings_of(state: State, settings: Settings) -> Settings:
    """The settings with what the running lab was started with."""
    given = {"run_dir": settings.run_dir, "cache_dir": settings.cache_dir}
    return load_settings({**given, **state.choices})


def same_lab(state: State, settings: Settings) -> None:
    """
    Whether the lab that runs is the one that was asked for.

    Raises:
        ConfigInvalid: it has another seed, profile, port offset or number of nodes than were asked for.
    """
    problems = [
        f"it has {name} {value}, you asked for {getattr(settings, name)}"
        for name, value in state.choices.items()
        if value != getattr(settings, name) and settings.origins[name] != "default"
    ]
    if problems:
        how = "Run `labkit down` first, or use another run directory (LABKIT_RUN_DIR) and port offset for a second lab."
        raise ConfigInvalid(f"The lab that runs in {settings.run_dir}", problems=problems, how=how)


def how_it_ended(run_dir: Path) -> str:
    """In words: that no lab runs in *run_dir*, and when and why the last one ended."""
    try:
        note = json.loads((run_dir / "ended.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return "no lab runs there"
    ended = datetime.fromtimestamp(note["ended"], UTC)
    ago = format_duration(max(1.0, (utc_now() - ended).total_seconds()))
    return f"no lab runs there; the last one ended {ago} ago ({ended:%Y-%m-%d %H:%M:%S} UTC): {note['reason']}"
