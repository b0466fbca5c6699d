"""
From the catalogue to files on disk: which instances there are, on which ports, with which arguments.

Text in `infra/` may hold `@{…}` expressions.  They know:

| name | is |
|---|---|
| `port.X` | a port of this component |
| `address.NAME` | `host:port` of an instance's first port |
| `at('NAME', 'X')` | the same for its port X |
| `listen` | the address that components listen on |
| `ports.NAME.X` | a port of another instance |
| `link('NAME')` | the same, through toxiproxy where it is there |
| `bin.NAME`, `share.NAME` | a program, and a folder of its data |
| `run`, `etc`, `data`, `secrets`, `sockets` | folders of this lab |
| `live` | a folder that is emptied at every start, for what must not outlive a run |
| `secret.NAME` | a secret of this lab; only for files that stay in `etc` |
| `infra`, `package`, `python` | where labkit's own files and interpreter are |
| `instance`, `seed`, `user` | the replica's name, the lab's seed, the present user |
| `rule_files` | the files of rules that Prometheus reads, as a pattern |
| `timing.NAME` | the lab's column of infra/prometheus/timings.yaml |
| `opensearch_nodes` | how many nodes OpenSearch has |
| `present` | names of the components of this lab |
"""

from __future__ import annotations

import difflib
import getpass
import hashlib
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import yaml

from labkit.errors import ConfigInvalid, ConfigProblem
from labkit.settings import Settings, files_root
from labkit.stack.acquire import Installed
from labkit.stack.catalogue import Component, Ready
from labkit.stack.download import write_atomically
from labkit.stack.timings import load_timings

__all__ = ["Instance", "Layout", "ports_of", "socket_dir"]

# A path longer than this cannot be the name of a Unix socket (108 bytes on Linux, 104 on macOS, less the file name).
_SOCKET_DIR_LIMIT = 80
_SECRETS = ("admin_token", "shop_password", "monitor_password", "webhook_token")
_TEMPLATES = jinja2.Environment(
    variable_start_string="@{",
    variable_end_string="}",
    undefined=jinja2.StrictUndefined,
    keep_trailing_newline=True,
    autoescape=False,  # noqa: S701  (configuration files, not HTML)
)


@dataclass(frozen=True, slots=True)
class Instance:
    """One process of the lab, ready to be started."""

    name: str
    component: Component
    ports: Mapping[str, int]
    argv: tuple[str, ...]
    env: Mapping[str, str]
    ready: Ready
    cwd: Path | None = None


def ports_of(component: Component, offset: int) -> dict[str, dict[str, int]]:
    """The ports of every instance of *component*: replicas count upwards from the first."""
    return {
        instance: {role: port + offset + number for role, port in component.ports.items()}
        for number, instance in enumerate(component.instances)
    }


def socket_dir(run_dir: Path) -> Path:
    """Where the Unix sockets of a lab live: in its run directory, or in a short folder when its path is too long."""
    if len(str(run_dir)) <= _SOCKET_DIR_LIMIT:
        return run_dir / "sock"
    short = hashlib.sha256(str(run_dir).encode()).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"labkit-{os.getuid()}-{short}"


class Layout:
    """
    Everything that is known about a lab before it starts.

    Args:
        components: in the order in which they start.
        programs: the programs that are here, by component.
        settings: run directory, port offset, seed.
    """

    def __init__(
        self, components: Mapping[str, Component], programs: Mapping[str, Installed], settings: Settings
    ) -> None:
        self.settings = settings
        self.run = settings.run_dir
        self.programs = dict(programs)
        self.components = {n: c for n, c in components.items() if c.program is None or n in programs}
        self.ports = {
            instance: ports
            for component in components.values()
            for instance, ports in ports_of(component, settings.port_offset).items()
        }
        self.link_ports = {name: port + settings.port_offset for name, port in _link_ports().items()}
        self.secrets = self._make_secrets()
        self.instances = {i.name: i for c in self.components.values() for i in self._instances(c)}

    @property
    def etc(self) -> Path:
        """Folder of the rendered configuration."""
        return self.run / "etc"

    @property
    def log(self) -> Path:
        """Folder of the logs, one file per instance."""
        return self.run / "log"

    @property
    def live(self) -> Path:
        """Folder of what must not outlive a run; emptied at every start."""
        return self.run / "live"

    def data(self, name: str) -> Path:
        """Folder of the data of one instance; another seed is another past, so it has data of its own."""
        return self.run / "data" / f"seed-{self.settings.seed}" / name

    def address(self, name: str) -> str:
        """The first port of an instance as this machine reaches it, `host:port`; empty for one without ports."""
        ports = self.ports[name]
        return f"127.0.0.1:{next(iter(ports.values()))}" if ports else ""

    def link(self, name: str) -> str:
        """The address under which other components reach *name*: through toxiproxy if it is part of this lab."""
        return f"127.0.0.1:{self.link_ports[name]}" if "toxiproxy" in self.components else self.address(name)

    @property
    def link_host(self) -> str:
        """The address that toxiproxy's links listen on."""
        return "127.0.0.1"

    @property
    def link_offset(self) -> int:
        """What is added to the declared ports of the links."""
        return self.settings.port_offset

    def upstreams(self) -> dict[str, str]:
        """Where the components reach each instance that has a port, as `host:port`."""
        return {name: self.address(name) for name in self.instances if self.ports[name]}

    def all_ports(self) -> dict[int, str]:
        """Every port that this lab will listen on, with the name of its instance."""
        found = {port: name for name in self.instances for port in self.ports[name].values()}
        if "toxiproxy" in self.components:
            found |= dict.fromkeys(self.link_ports.values(), "toxiproxy")
        return found

    def write_files(self) -> None:
        """
        Render every configuration file below `etc`, and make the folders for data and logs.

        Raises:
            ConfigInvalid: a file uses a name that is not known; says which line and what is meant.
        """
        shutil.rmtree(self.live, ignore_errors=True)
        for folder in (self.etc, self.log, self.live, *(self.data(name) for name in self.instances)):
            folder.mkdir(parents=True, exist_ok=True)
        for component in self.components.values():
            for source, target in component.files.items():
                text = (files_root() / "infra" / source).read_text(encoding="utf-8")
                path = self.run / target
                path.parent.mkdir(parents=True, exist_ok=True)
                rendered = self.render(text, component, component.instances[0], source=f"infra/{source}")
                write_atomically(path, rendered, mode=0o600)

    def render(self, text: str, component: Component, instance: str, *, source: str) -> str:
        """*text* with its `@{…}` expressions filled in for *instance*."""
        try:
            return _TEMPLATES.from_string(text).render(self.names(component, instance))
        except jinja2.TemplateSyntaxError as error:
            raise ConfigInvalid(source, problems=[ConfigProblem(error.lineno, 1, str(error.message))]) from error
        except jinja2.UndefinedError as error:
            raise ConfigInvalid(source, problems=[_undefined(text, str(error), self)]) from error

    def _make_secrets(self) -> dict[str, str]:
        folder = self.run / "secrets"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for name in _SECRETS:
            if not (folder / name).exists():
                write_atomically(folder / name, secrets.token_urlsafe(24), mode=0o600)
        return {name: (folder / name).read_text(encoding="utf-8") for name in _SECRETS}

    def names(self, component: Component, instance: str) -> dict[str, Any]:
        """What `@{…}` may refer to in a text for *instance*; the table is in the module's docstring."""
        return {
            "port": self.ports[instance],
            "address": {name: self.address(name) for name in self.ports},
            "at": lambda name, role: f"127.0.0.1:{self.ports[name][role]}",
            "listen": "127.0.0.1",
            "ports": self.ports,
            "link": self.link,
            "bin": {name: str(program.path) for name, program in self.programs.items()},
            "share": {"mysql": _mysql_share(self.programs.get("mariadb"))},
            "run": str(self.run),
            "etc": str(self.etc),
            "data": str(self.data(instance)),
            "secrets": str(self.run / "secrets"),
            "sockets": str(socket_dir(self.run)),
            "live": str(self.live),
            "secret": self.secrets,
            "infra": str(files_root() / "infra"),
            "package": str(Path(__file__).resolve().parent.parent),
            "python": sys.executable,
            "instance": instance,
            "seed": self.settings.seed,
            "user": getpass.getuser(),
            "rule_files": f"{self.etc}/prometheus/rules/*.yml",
            "timing": load_timings("lab"),
            "opensearch_nodes": self.settings.opensearch_nodes,
            "present": list(self.components),
            "component": component.name,
        }

    def _instances(self, component: Component) -> list[Instance]:
        source = f"infra/components/{component.name}.yaml"
        program = self.programs.get(component.name)
        found = []
        for name in component.instances:

            def fill(text: str, name: str = name) -> str:
                return self.render(text, component, name, source=source)

            argv = tuple(fill(part) for part in component.argv) + (program.args if program else ())
            env = {key: fill(value) for key, value in component.env.items()} | (program.env if program else {})
            url = fill(component.ready.url) if component.ready.url else None
            ready = component.ready.model_copy(update={"url": url})
            found.append(
                Instance(name, component, self.ports[name], argv, env, ready, program.cwd if program else None)
            )
        return found


def _link_ports() -> dict[str, int]:
    """On which port toxiproxy listens for each instance that is reached through it."""
    text = (files_root() / "infra" / "shop" / "links.yaml").read_text(encoding="utf-8")
    return {link["name"]: link["listen"] for link in yaml.safe_load(text)["links"]}


def _mysql_share(program: Installed | None) -> str:
    """The folder of MariaDB's messages and system tables, which differs between its packages."""
    if program is None:
        return ""
    resolved = Path(shutil.which(program.path) or program.path).resolve()
    for base in (resolved.parent.parent, resolved.parent.parent.parent):
        for folder in ("share/mysql", "share/mariadb"):
            if (base / folder / "mysql_system_tables.sql").exists():
                return str(base / folder)
    return str(resolved.parent.parent / "share" / "mysql")


def _undefined(text: str, message: str, layout: Layout) -> ConfigProblem:
    """Where in *text* the unknown name stands, and what was probably meant."""
    name = next((part for part in reversed(message.split("'")) if part and part in text), "")
    line = next((n for n, row in enumerate(text.splitlines(), 1) if "@{" in row and name in row), 1)
    row = text.splitlines()[line - 1] if text else ""
    first = next(iter(layout.components.values()))
    known = [*layout.ports, *layout.names(first, first.instances[0])]
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return ConfigProblem(line, max(row.find("@{"), 0) + 1, f"`{name}` is not a name that files may use{hint}")
