"""
Configuration of a service: environment variables only, one table, every mistake reported at once.

    >>> load_config("payments", {"SHOP_PORT": "8085"}).instance
    'payments-1'
"""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from labkit.errors import ConfigInvalid

__all__ = ["SERVICES", "VARIABLES", "Config", "MariaDbUrl", "Variable", "load_config"]

SERVICES: tuple[str, ...] = ("gateway", "catalog", "cart", "orders", "payments", "worker")
_ON_MARIADB = frozenset({"catalog", "orders", "worker"})
_ON_REDIS = frozenset({"cart", "orders", "worker"})
_GATEWAY = frozenset({"gateway"})
_EVERY = frozenset(SERVICES)


@dataclass(frozen=True, slots=True)
class MariaDbUrl:
    """Where MariaDB is and as whom to enter; the password is never shown."""

    host: str
    port: int
    user: str
    password: str
    database: str

    def __repr__(self) -> str:
        return f"mysql://{self.user}:***@{self.host}:{self.port}/{self.database}"


@dataclass(frozen=True, slots=True)
class Config:
    """The values one service runs with; what a service does not use is empty or None."""

    service: str
    host: str
    port: int
    admin_port: int | None
    admin_token: str
    instance: str
    version: str
    deploy_log: Path | None
    state_file: Path | None
    log_level: str
    access_log_every: int
    catalog_urls: tuple[str, ...]
    payments_urls: tuple[str, ...]
    cart_url: str
    orders_url: str
    redis_url: str
    mariadb: MariaDbUrl | None
    queue_cap: int
    orders_keep: int
    otlp_url: str
    trace_share: float


def _text(value: str) -> str:
    return value


def _port(value: str) -> int:
    if not value.isdigit() or not 1 <= int(value) <= 65535:
        raise ValueError(f"expected a port from 1 to 65535, got {value!r}")
    return int(value)


def _count(value: str) -> int:
    if not value.isdigit() or int(value) < 1:
        raise ValueError(f"expected a whole number from 1 up, got {value!r}")
    return int(value)


def _share(value: str) -> float:
    try:
        share = float(value)
    except ValueError:
        share = math.nan
    if not 0 <= share <= 1:
        raise ValueError(f"expected a fraction from 0 to 1, got {value!r}")
    return share


def _url(*schemes: str) -> Callable[[str], str]:
    def parse(value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in schemes or not parts.hostname:
            raise ValueError(f"expected an address that starts with {' or '.join(s + '://' for s in schemes)}")
        return value.rstrip("/")

    return parse


def _urls(value: str) -> tuple[str, ...]:
    parts = [part.strip() for part in value.split(",") if part.strip()]
    if not parts:
        raise ValueError("expected addresses separated by commas, got none")
    return tuple(_url("http")(part) for part in parts)


def _mariadb(value: str) -> MariaDbUrl:
    parts = urlsplit(value)
    if parts.scheme != "mysql" or not (parts.hostname and parts.username and parts.path.strip("/")):
        raise ValueError("expected mysql://user:password@host:port/database")
    return MariaDbUrl(
        host=parts.hostname,
        port=parts.port or 3306,
        user=unquote(parts.username),
        password=unquote(parts.password or ""),
        database=parts.path.strip("/"),
    )


def _secret_file(value: str) -> str:
    try:
        secret = Path(value).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ValueError(f"{value} cannot be read: {error.strerror}") from error
    if not secret:
        raise ValueError(f"{value} is empty")
    return secret


def _level(value: str) -> str:
    if value.lower() not in {"debug", "info", "warning", "error"}:
        raise ValueError(f"expected debug, info, warning or error, got {value!r}")
    return value.upper()


@dataclass(frozen=True, slots=True)
class Variable:
    """One row: the variable, the services that read it, the default (None: must be set) and the meaning."""

    name: str
    parse: Callable[[str], Any]
    default: Any
    doc: str
    services: frozenset[str] = _EVERY
    required: bool = False

    @property
    def field(self) -> str:
        """The attribute of `Config` that holds the value."""
        return _FIELDS.get(self.name, self.name.removeprefix("SHOP_").lower())


_FIELDS = {"SHOP_ADMIN_TOKEN_FILE": "admin_token", "SHOP_MARIADB_URL": "mariadb"}

VARIABLES: tuple[Variable, ...] = (
    Variable("SHOP_HOST", _text, "127.0.0.1", "address to listen on"),
    Variable("SHOP_PORT", _port, None, "port of the traffic, /metrics, /healthz and /readyz", required=True),
    Variable("SHOP_ADMIN_PORT", _port, None, "port of the admin API; not set: no admin API"),
    Variable("SHOP_ADMIN_TOKEN_FILE", _secret_file, "", "file with the bearer token of the admin API"),
    Variable("SHOP_INSTANCE", _text, "", "name of this replica; by default the service and -1"),
    Variable("SHOP_VERSION", _text, "1.0.0", "version that this replica reports when it starts"),
    Variable("SHOP_DEPLOY_LOG", Path, None, "JSON lines file that deploys are appended to"),
    Variable("SHOP_STATE_FILE", Path, None, "file that keeps flags and version over a restart; not set: they are lost"),
    Variable("SHOP_LOG_LEVEL", _level, "INFO", "debug, info, warning or error"),
    Variable("SHOP_ACCESS_LOG_EVERY", _count, 100, "one line per this many good requests; failures always have one"),
    Variable("SHOP_OTLP_URL", _url("http", "https"), "", "address that spans are sent to; not set: no traces"),
    Variable("SHOP_TRACE_SHARE", _share, 1.0, "share of traces that are kept, 0 to 1, decided where a trace begins"),
    Variable("SHOP_CATALOG_URLS", _urls, (), "replicas of catalog, separated by commas", _GATEWAY, required=True),
    Variable("SHOP_PAYMENTS_URLS", _urls, (), "replicas of payments, separated by commas", _GATEWAY, required=True),
    Variable("SHOP_CART_URL", _url("http"), "", "address of cart", _GATEWAY, required=True),
    Variable("SHOP_ORDERS_URL", _url("http"), "", "address of orders", _GATEWAY, required=True),
    Variable("SHOP_REDIS_URL", _url("redis"), "", "redis://host:port/db", _ON_REDIS, required=True),
    Variable(
        "SHOP_MARIADB_URL", _mariadb, None, "mysql://user:password@host:port/database", _ON_MARIADB, required=True
    ),
    Variable(
        "SHOP_MARIADB_PASSWORD_FILE", _secret_file, "", "file with the password for SHOP_MARIADB_URL", _ON_MARIADB
    ),
    Variable("SHOP_QUEUE_CAP", _count, 500, "jobs a queue may hold before new ones are refused", frozenset({"orders"})),
    Variable("SHOP_ORDERS_KEEP", _count, 120_000, "newest orders that are kept", frozenset({"worker"})),
)


def load_config(service: str, environ: Mapping[str, str] | None = None) -> Config:
    """
    The configuration of *service*.

    Args:
        service: one of `SERVICES`.
        environ: variables; `os.environ` if None.

    Raises:
        ConfigInvalid: an unknown service, or variables that are missing, wrong or unknown; all are listed.
    """
    environ = os.environ if environ is None else environ
    if service not in SERVICES:
        raise ConfigInvalid("python -m labkit.shop", problems=[_unknown("service", service, SERVICES)])
    problems = [
        _unknown("variable", name, [v.name for v in VARIABLES])
        for name in environ
        if name.startswith("SHOP_") and name not in {v.name for v in VARIABLES}
    ]
    values: dict[str, Any] = {"service": service}
    for variable in VARIABLES:
        try:
            values[variable.field] = _value(variable, service, environ)
        except ValueError as error:
            problems.append(f"{variable.name} ({variable.doc}): {error}")
    if values.get("admin_port") and not values.get("admin_token") and "SHOP_ADMIN_TOKEN_FILE" not in environ:
        problems.append("SHOP_ADMIN_TOKEN_FILE: needed with SHOP_ADMIN_PORT; no admin API without a token")
    if problems:
        raise ConfigInvalid(
            f"The environment of {service}", problems=problems, how="docs/shop.md lists every variable."
        )
    return _finish(values)


def _value(variable: Variable, service: str, environ: Mapping[str, str]) -> Any:
    text = environ.get(variable.name, "")
    if service not in variable.services or not text:
        if variable.required and service in variable.services:
            raise ValueError("is missing")
        return variable.default
    return variable.parse(text)


def _finish(values: dict[str, Any]) -> Config:
    password = values.pop("mariadb_password_file")
    if password and values["mariadb"]:
        known: MariaDbUrl = values["mariadb"]
        values["mariadb"] = MariaDbUrl(known.host, known.port, known.user, password, known.database)
    values["instance"] = values["instance"] or f"{values['service']}-1"
    return Config(**values)


def _unknown(what: str, name: str, known: tuple[str, ...] | list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}"
    return f"{name!r} is not a {what}; {hint}"
