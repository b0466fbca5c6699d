"""
The one table of settings.

Precedence: argument, then environment, then file, then default.  The file is
`labkit.toml` in the working directory, or `~/.config/labkit/labkit.toml`; its keys are the
names below.  `labkit doctor --settings` prints the table with the value and origin of each.
"""

from __future__ import annotations

import difflib
import os
import sys
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labkit._time import parse_duration
from labkit.errors import ConfigInvalid

__all__ = ["SETTINGS", "Setting", "Settings", "files_root", "load_settings"]

PACES = ("quick", "full")
PROFILES = ("core", "jaeger-opensearch")
LABS = ("local", "kind")
OVERLAYS = ("small", "ci")
NODES = (1, 3)


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the table: what it is called, where it may come from, and what it means."""

    name: str
    parse: Callable[[str], Any]
    default: Callable[[], Any]
    doc: str

    @property
    def env(self) -> str:
        """The environment variable that sets it."""
        return f"LABKIT_{self.name.upper()}"


@dataclass(frozen=True, slots=True)
class Settings:
    """The values in force; see `SETTINGS` for the meaning and unit of each."""

    run_dir: Path
    cache_dir: Path
    port_offset: int
    ttl_s: float
    owner_grace_s: float
    mirror: str
    lab: str
    profile: str
    opensearch_nodes: int
    overlay: str
    node_image: str
    base_image: str
    shop_image: str
    image_registry: str
    trust_context: str
    pace: str
    seed: int
    strict: bool
    origins: Mapping[str, str]


def _path(text: str) -> Path:
    return Path(text).expanduser().absolute()


def _flag(text: str) -> bool:
    lowered = text.strip().lower()
    if lowered in {"1", "true", "yes", "on"}:
        return True
    if lowered in {"0", "false", "no", "off", ""}:
        return False
    raise ValueError(f"expected true or false, got {text!r}")


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise ValueError(f"expected a whole number, got {text!r}") from error


def _nodes(text: str) -> int:
    if _integer(text) not in NODES:
        raise ValueError(f"expected {' or '.join(map(str, NODES))}, got {text!r}")
    return _integer(text)


def _one_of(*allowed: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in allowed:
            close = difflib.get_close_matches(text, allowed, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise ValueError(f"expected one of {', '.join(allowed)}, got {text!r}{hint}")
        return text

    return parse


def _place(text: str) -> str:
    """`local`, `kind` or the name of a context; what is nearly one of the first two is not taken for a context."""
    if text in LABS:
        return text
    close = difflib.get_close_matches(text.lower(), LABS, n=1, cutoff=0.75)
    if not text.strip() or close:
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"expected local, kind or the name of a kubectl context, got {text!r}{hint}")
    return text


def _home(variable: str, fallback: str) -> Path:
    return Path(os.environ.get(variable) or Path.home() / fallback)


SETTINGS: tuple[Setting, ...] = (
    Setting(
        "run_dir",
        _path,
        lambda: _home("XDG_STATE_HOME", ".local/state") / "labkit" / "lab",
        "folder of the running lab: data, logs, configuration, secrets; two labs need two",
    ),
    Setting(
        "cache_dir",
        _path,
        lambda: _home("XDG_CACHE_HOME", ".cache") / "labkit",
        "folder of components that were downloaded or built; shared by all labs, safe to delete",
    ),
    Setting("port_offset", _integer, lambda: 0, "added to every port of the lab; two labs side by side need two"),
    Setting(
        "ttl_s",
        parse_duration,
        lambda: 4 * 3600.0,
        "a lab that nobody used for this long stops itself (a duration: 30m, 4h)",
    ),
    Setting(
        "owner_grace_s",
        parse_duration,
        lambda: 60.0,
        "a lab whose owner died waits this long to be rejoined before it stops (a duration)",
    ),
    Setting(
        "mirror",
        str,
        lambda: "",
        "asked before github.com for releases: an address, or a folder (an offline bundle) with the same paths",
    ),
    Setting(
        "lab",
        _place,
        lambda: "local",
        "where the stack runs: local (processes here), kind (a cluster in Docker), or the name of a kubectl context",
    ),
    Setting("profile", _one_of(*PROFILES), lambda: "core", "which components run: " + ", ".join(PROFILES)),
    Setting(
        "opensearch_nodes",
        _nodes,
        lambda: 1,
        "nodes of OpenSearch in profile jaeger-opensearch: 1, or 3, which survive the loss of one",
    ),
    Setting(
        "overlay",
        _one_of(*OVERLAYS),
        lambda: "small",
        "how large the lab is on a cluster: small (a laptop with 6 GB to spare), ci (images that tests build)",
    ),
    Setting("node_image", str, lambda: "", "image of kind's nodes, if not the one that this kind was made for"),
    Setting(
        "base_image", str, lambda: "", "image with Python 3.11 on which that of the shop is built, if not Docker Hub's"
    ),
    Setting(
        "shop_image", str, lambda: "", "image of the shop for a cluster that is not kind's, pushed where it can pull"
    ),
    Setting("image_registry", str, lambda: "", "registry asked for public images instead of their own, as a mirror"),
    Setting("trust_context", str, lambda: "", "exact name of the kubectl context that may be used without being asked"),
    Setting(
        "pace", _one_of(*PACES), lambda: "quick", "quick: every path, small samples; full: enough to support the claims"
    ),
    Setting("seed", _integer, lambda: 7, "seed of everything random; the same seed gives the same history"),
    Setting("strict", _flag, lambda: False, "checks raise instead of printing (batch and CI)"),
)


def load_settings(
    overrides: Mapping[str, Any] | None = None, *, environ: Mapping[str, str] | None = None, file: Path | None = None
) -> Settings:
    """
    The settings in force now.

    Args:
        overrides: values by name that win over everything; None values are ignored.
        environ: environment variables; `os.environ` if None.
        file: a configuration file; the first that exists of `labkit.toml` here and
            `~/.config/labkit/labkit.toml` if None.

    Raises:
        ConfigInvalid: a value or a name that is not allowed; all mistakes are listed, each with its place
            and the nearest correct name.

    >>> load_settings({"seed": 3}, environ={"LABKIT_PACE": "full"}, file=Path("/nonexistent")).pace
    'full'
    """
    environ = os.environ if environ is None else environ
    given = {name: value for name, value in (overrides or {}).items() if value is not None}
    known = [setting.name for setting in SETTINGS]
    problems = [_unknown("argument", name, known) for name in given if name not in known]
    problems += [
        _unknown("environment variable", name, [s.env for s in SETTINGS])
        for name in environ
        if name.startswith("LABKIT_") and name not in {s.env for s in SETTINGS} and name not in _PRIVATE_VARIABLES
    ]
    path, from_file = _read_file(file)
    problems += [_unknown(str(path), name, known) for name in from_file if name not in known]
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for setting in SETTINGS:
        name = setting.name
        if name in given:
            raw, origins[name] = given[name], "argument"
        elif setting.env in environ:
            raw, origins[name] = environ[setting.env], f"environment {setting.env}"
        elif name in from_file:
            raw, origins[name] = from_file[name], str(path)
        else:
            raw, origins[name] = setting.default(), "default"
        try:
            values[name] = (
                setting.parse(raw) if isinstance(raw, str) else setting.parse(str(raw)) if _is_choice(name) else raw
            )
        except ValueError as error:
            problems.append(f"{name} ({origins[name]}): {error}")
    if problems:
        raise ConfigInvalid(
            "The labkit configuration", problems=problems, how="Run `labkit doctor --settings` for the table."
        )
    return Settings(origins=origins, **values)


# Variables that labkit sets for its own child processes; they are not settings.
_PRIVATE_VARIABLES = frozenset({"LABKIT_LAB_ID"})


def _is_choice(name: str) -> bool:
    return name in {"lab", "profile", "overlay", "pace", "opensearch_nodes"}


def _unknown(where: str, name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"{where}: {name!r} is not a setting" + (
        f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(known)}"
    )


def _read_file(file: Path | None) -> tuple[Path, dict[str, Any]]:
    config_home = _home("XDG_CONFIG_HOME", ".config")
    candidates = [file] if file else [Path("labkit.toml"), config_home / "labkit" / "labkit.toml"]
    for path in candidates:
        if path.is_file():
            try:
                return path, tomllib.loads(path.read_text(encoding="utf-8"))
            except tomllib.TOMLDecodeError as error:
                raise ConfigInvalid(str(path), problems=[f"not TOML: {error}"]) from error
    return candidates[0], {}


def files_root() -> Path:
    """
    The folder that holds `infra/`, `notebooks/` and `data/`: the checkout, or the copy inside an installed wheel.

    Raises:
        ConfigInvalid: neither is there; the installation is broken.
    """
    package = Path(sys.modules[__name__].__file__ or "").resolve().parent
    for root in (package.parent, package / "_files"):
        if (root / "infra" / "components").is_dir():
            return root
    raise ConfigInvalid(str(package), problems=["infra/ is missing beside it"], how="Install labkit again.")
