"""
The table of timings, `infra/prometheus/timings.yaml`, and the configuration that is made with its columns.

`labkit up` uses the column `lab`.  The other is there to be read and taken home:

    python -m labkit.stack.timings production build/production
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Literal, get_args

import jinja2
from pydantic import BaseModel, ConfigDict, RootModel, field_validator

from labkit._time import parse_duration
from labkit._yaml import load_model
from labkit.errors import InvalidValue
from labkit.settings import files_root

__all__ = ["Edition", "load_timings", "write_edition"]

Edition = Literal["lab", "production"]
_FILES = ("prometheus/prometheus.yml", "alertmanager/alertmanager.yml")


class _Timing(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    lab: str
    production: str
    about: str

    @field_validator("lab", "production")
    @classmethod
    def _is_a_duration(cls, value: str) -> str:
        parse_duration(value)
        return value


class _Table(RootModel[dict[str, _Timing]]):
    pass


def load_timings(edition: Edition = "lab") -> dict[str, str]:
    """
    Name → duration, as Prometheus writes it.

    Raises:
        ConfigInvalid: the table has mistakes; all are listed.

    >>> load_timings()["scrape_interval"], load_timings("production")["scrape_interval"]
    ('5s', '15s')
    """
    table = load_model(_Table, files_root() / "infra" / "prometheus" / "timings.yaml")
    return {name: str(getattr(timing, edition)) for name, timing in table.root.items()}


def write_edition(edition: Edition, folder: Path) -> list[Path]:
    """
    Write the configuration of Prometheus and Alertmanager with the timings of *edition* below *folder*.

    Components are addressed by their names, as on a cluster; secrets are expected in `/etc/labkit/secrets`.

    Returns:
        The files: `prometheus/prometheus.yml`, `prometheus/rules/*.yml`, `alertmanager/alertmanager.yml`.
    """
    infra = files_root() / "infra"
    rules = sorted(path.relative_to(infra) for path in (infra / "prometheus" / "rules").glob("*.yml"))
    names = {
        "timing": load_timings(edition),
        "address": _ByName(),
        "rule_files": f"{folder.absolute()}/prometheus/rules/*.yml",
        "secrets": "/etc/labkit/secrets",
    }
    templates = jinja2.Environment(
        variable_start_string="@{",
        variable_end_string="}",
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701  (configuration files, not HTML)
    )
    written = []
    for name in (*map(Path, _FILES), *rules):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        text = (infra / name).read_text(encoding="utf-8")
        target.write_text(templates.from_string(text).render(names), encoding="utf-8")
        written.append(target)
    return written


class _ByName(dict[str, str]):
    """The address of whatever is asked for: its name, and the port that its component has without an offset."""

    def __missing__(self, name: str) -> str:
        from labkit.stack.catalogue import load_catalogue  # noqa: PLC0415  (only to write an edition)

        component = next(c for c in load_catalogue().values() if name in c.instances)
        port = next(iter(component.ports.values())) + component.instances.index(name)
        return f"{name}:{port}"


def _main(arguments: list[str]) -> Any:
    known = get_args(Edition)
    if len(arguments) != 2 or arguments[0] not in known:
        raise InvalidValue("arguments", expected=f"an edition ({', '.join(known)}) and a folder", got=arguments)
    edition: Edition = "production" if arguments[0] == "production" else "lab"
    return [sys.stdout.write(f"{path}\n") for path in write_edition(edition, Path(arguments[1]))]


if __name__ == "__main__":
    _main(sys.argv[1:])
