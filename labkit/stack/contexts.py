"""
Which cluster a lab goes to, and whether somebody must say so first.

Nothing here speaks to a cluster: contexts are read from the files of kubectl, which are never written.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from labkit.errors import ConfigInvalid, NotConfirmed, UnknownName

__all__ = [
    "TRUST",
    "Context",
    "confirm",
    "contexts",
    "is_of_this_machine",
    "kubeconfig_path",
    "needs_asking",
    "resolve",
]

TRUST = "LABKIT_TRUST_CONTEXT"

_PRODUCTION = frozenset({"prod", "prods", "prd", "production", "productive", "prodn", "live"})
_NOT = frozenset({"non", "not", "no"})
# camelCase and digits end a word: `shopProd2` has `prod`, `product` and `olive` have none.
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")


@dataclass(frozen=True, slots=True)
class Context:
    """A context and what it stands for; `kubeconfig` is None for that of the environment, `namespace` may be ""."""

    kubeconfig: Path | None
    context: str
    cluster: str
    server: str
    user: str
    namespace: str


def kubeconfig_path(kubeconfig: Path | None) -> str:
    """The file, or files joined as in KUBECONFIG, that contexts are read from."""
    if kubeconfig is not None:
        return str(kubeconfig)
    return os.environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")


def contexts(kubeconfig: Path | None = None) -> list[Context]:
    """
    The contexts of a kubeconfig, in its order; of several files in KUBECONFIG, the first that has a name wins.

    Args:
        kubeconfig: the file; KUBECONFIG or ~/.kube/config if None.

    Raises:
        ConfigInvalid: there is no file, or one that cannot be read.
    """
    source = kubeconfig_path(kubeconfig)
    paths = [Path(part).expanduser() for part in source.split(os.pathsep) if part]
    files = [(path, _read(path)) for path in paths if path.exists()]
    if not files:
        how = (
            "A cluster brings its own: `kind export kubeconfig`, or what your provider's tool writes. "
            "A lab on this machine needs none: `labkit up`."
        )
        raise ConfigInvalid(source, problems=["there is no such file, so no cluster is known"], how=how)
    servers: dict[str, str] = {}
    for path, content in files:
        for name, cluster in _named(path, content, "clusters", "cluster"):
            servers.setdefault(name, str(cluster.get("server") or ""))
    found: dict[str, Context] = {}
    for path, content in files:
        for name, one in _named(path, content, "contexts", "context"):
            of, user, namespace = (str(one.get(key) or "") for key in ("cluster", "user", "namespace"))
            found.setdefault(name, Context(kubeconfig, name, of, servers.get(of, ""), user, namespace))
    return list(found.values())


def resolve(name: str, kubeconfig: Path | None = None) -> Context:
    """
    The context of this very name.

    Raises:
        UnknownName: there is none; names the nearest.
        ConfigInvalid: no kubeconfig, one that cannot be read, or a context without a server.
    """
    known = {one.context: one for one in contexts(kubeconfig)}
    if name not in known:
        where = kubeconfig_path(kubeconfig)
        how = f"They are from {where}; beside them there are `local` and `kind`."
        raise UnknownName("context of your kubeconfig", name, known=list(known), how=how)
    if not known[name].server:
        problem = f"context {name!r} names the cluster {known[name].cluster!r}, which has no server there"
        raise ConfigInvalid(
            kubeconfig_path(kubeconfig), problems=[problem], how="`kubectl config view` shows the file."
        )
    return known[name]


def is_of_this_machine(server: str, context: str = "") -> bool:
    """
    Whether an API server listens on this machine's loopback.

    Names are not looked up: what a name server says today is no promise.

    >>> is_of_this_machine("https://127.0.0.1:6443"), is_of_this_machine("https://10.0.0.7:6443")
    (True, False)
    """
    host = (urlsplit(server if "//" in server else f"//{server}").hostname or "").rstrip(".").lower()
    if host == "localhost" or host.endswith(".localhost"):
        return True
    if host == "kubernetes.docker.internal":
        # Docker Desktop writes this name for loopback into the hosts file.
        return context == "docker-desktop"
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def needs_asking(context: str, cluster: str, server: str, namespace: str = "", user: str = "") -> str:
    """
    Why somebody must say that this cluster is meant; "" when it is plainly one of this machine.

    >>> needs_asking("kind-labkit", "kind-labkit", "https://127.0.0.1:6443")
    ''
    >>> needs_asking("shop-prod", "shop", "https://127.0.0.1:6443")
    "the context's name `shop-prod` looks like production"
    """
    reasons = []
    if not is_of_this_machine(server, context):
        reasons.append(f"its API server {server or '(none named)'} is not on this machine")
    host = urlsplit(server if "//" in server else f"//{server}").hostname or ""
    names = {"context": context, "cluster": cluster, "server": host, "namespace": namespace, "user": user}
    told: set[str] = set()
    for what, name in names.items():
        if name not in told and _looks_like_production(name):
            told.add(name)
            reasons.append(f"the {what}'s name `{name}` looks like production")
    return ", and ".join(reasons)


def confirm(
    ref: Context,
    namespace: str,
    *,
    yes: bool = False,
    ask: Callable[[str], bool] | None = None,
    environ: Mapping[str, str] | None = None,
) -> None:
    """
    Make sure that a cluster is meant before anything is done to it; returns when it is.

    Args:
        ref: the context.
        namespace: of the lab to be.
        yes: somebody said so on the command line.
        ask: asks a person on a terminal, and gives the answer; None when nobody is there to ask.
        environ: where `LABKIT_TRUST_CONTEXT` may stand; the process's environment if None.

    Raises:
        NotConfirmed: nobody said so, or the answer was no.
    """
    reason = needs_asking(ref.context, ref.cluster, ref.server, ref.namespace, ref.user)
    trusted = (os.environ if environ is None else environ).get(TRUST, "")
    if not reason or yes or trusted == ref.context:
        return
    question = f"Make a lab in namespace {namespace} of context {ref.context} ({ref.server})? Careful: {reason}."
    if ask is not None:
        if ask(question):
            return
        raise NotConfirmed(ref.context, reason=f"the answer was no, and {reason}", how="Choose another with `--on`.")
    other = f" ({TRUST} names another one, {trusted!r}.)" if trusted else ""
    how = f"If it is the one you mean, add `--yes-this-cluster`, or set {TRUST}={ref.context}.{other}"
    raise NotConfirmed(ref.context, reason=reason, how=how)


def _looks_like_production(name: str) -> bool:
    words = [word.lower() for word in _WORD.findall(name)]
    before = ["", *words]
    return any(word in _PRODUCTION and before[i] not in _NOT for i, word in enumerate(words))


def _read(path: Path) -> Mapping[str, Any]:
    how = "`kubectl config view` shows whether kubectl can read it."
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "it is no text"
        raise ConfigInvalid(str(path), problems=[f"it cannot be read: {reason}"], how=how) from error
    except yaml.YAMLError as error:
        where = f" in line {mark.line + 1}" if (mark := getattr(error, "problem_mark", None)) else ""
        what = getattr(error, "problem", None) or "it cannot be parsed"
        raise ConfigInvalid(str(path), problems=[f"it is no YAML{where}: {what}"], how=how) from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigInvalid(str(path), problems=["it is no kubeconfig: a mapping with `contexts` is expected"], how=how)
    return content


def _named(path: Path, content: Mapping[str, Any], field: str, inner: str) -> list[tuple[str, Mapping[str, Any]]]:
    listed = content.get(field) or []
    try:
        return [(str(one["name"]), one.get(inner) or {}) for one in listed]
    except (TypeError, KeyError, AttributeError) as error:
        problem = f"`{field}` is no list of entries with `name` and `{inner}`"
        raise ConfigInvalid(str(path), problems=[problem], how="`kubectl config view` shows the file.") from error
