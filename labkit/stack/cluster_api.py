"""Calls to the API server of a cluster: JSON in and out, limits always, errors of our tree."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode
from urllib.request import getproxies

from labkit.errors import ClusterGone, ClusterRefused, ConfigInvalid
from labkit.stack.contexts import is_of_this_machine, kubeconfig_path

__all__ = ["APPLY", "GRACE_S", "MERGE", "Api"]

APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"

_CONNECT_TIMEOUT_S = 5
_TIMEOUT_S = 20
# An API server restarts in less, and kubelet brings it back by itself.
GRACE_S = 30.0
_AGAIN_AFTER_S = 1.0

T = TypeVar("T")


class Api:
    """
    One context of a kubeconfig; nothing is asked before the first call, and the files are not written.

    Args:
        kubeconfig: the file to read; KUBECONFIG or ~/.kube/config if None.
        context: a context in it.
        grace_s: how long the server may be silent in the middle of something, in seconds.

    Raises:
        ConfigInvalid: there is no such file or context, or it cannot be used.
    """

    def __init__(self, kubeconfig: Path | None, context: str, *, grace_s: float = GRACE_S) -> None:
        import kubernetes  # noqa: PLC0415  (half a second; only labs on a cluster need it)
        from kubernetes.config import ConfigException  # noqa: PLC0415

        self.kubeconfig, self.context, self.grace_s = kubeconfig, context, grace_s
        source = kubeconfig_path(kubeconfig)
        try:
            client = kubernetes.config.new_client_from_config(config_file=source, context=context, persist_config=False)
        except (ConfigException, OSError, ValueError, TypeError) as error:
            raise ConfigInvalid(
                source,
                problems=[f"context {context!r} cannot be used: {error}"],
                how="`kubectl config get-contexts` lists the contexts that there are.",
            ) from error
        if is_of_this_machine(client.configuration.host) and client.configuration.proxy in getproxies().values():
            # Proxies of the environment are for the outside world; newer clients take them for loopback too.
            client.configuration.proxy = None
            client = kubernetes.client.ApiClient(client.configuration)
        self._configuration = client.configuration
        self._pool = client.rest_client.pool_manager
        self.server = str(client.configuration.host).rstrip("/")
        self.last_answer: datetime | None = None

    def call(
        self,
        method: str,
        path: str,
        *,
        what: str = "",
        query: Mapping[str, str] | None = None,
        body: object = None,
        content_type: str = "application/json",
        timeout_s: float = _TIMEOUT_S,
        warn: Callable[[str], None] | None = None,
    ) -> Any:
        """
        One exchange in JSON.

        Args:
            method: GET, POST, PATCH or DELETE.
            path: from the root of the server: `/api/v1/namespaces`.
            what: the call in words, for the error; method and path if empty.
            query: added to the path.
            body: sent as JSON (which is YAML too, as an apply wants it).
            content_type: of the body.
            timeout_s: limit for each read of the answer, in seconds; connecting has 5.
            warn: given each warning that comes with the answer.

        Raises:
            ClusterGone: no answer.
            ClusterRefused: an answer with a status of 400 and above.
        """
        answer = self.text(
            method, path, what=what, query=query, body=body, content_type=content_type, timeout_s=timeout_s, warn=warn
        )
        return json.loads(answer) if answer else {}

    def text(
        self,
        method: str,
        path: str,
        *,
        what: str = "",
        query: Mapping[str, str] | None = None,
        body: object = None,
        content_type: str = "application/json",
        timeout_s: float = _TIMEOUT_S,
        warn: Callable[[str], None] | None = None,
    ) -> str:
        """The same, with the answer as text; logs are no JSON."""
        from urllib3 import Timeout  # noqa: PLC0415
        from urllib3.exceptions import HTTPError  # noqa: PLC0415

        url = f"{self.server}{path}" + (f"?{urlencode(query)}" if query else "")
        headers = {"Accept": "application/json, */*", **self._authorization()}
        data = None
        if body is not None:
            data, headers["Content-Type"] = json.dumps(body).encode(), content_type
        try:
            limit = Timeout(connect=_CONNECT_TIMEOUT_S, read=timeout_s)
            answer = self._pool.request(
                method, url, body=data, headers=headers, timeout=limit, retries=False, redirect=False
            )
        except (HTTPError, OSError) as error:
            raise self._gone(_plain(error)) from error
        self.last_answer = datetime.now(UTC)
        said = bytes(answer.data).decode("utf-8", "replace")
        if answer.status >= 400:
            raise _refused(what or f"{method} {path}", answer.status, said)
        if warn is not None:
            for header in answer.headers.getlist("Warning"):
                # 299 - "text"
                warn(header.partition('"')[2].rpartition('"')[0].replace('\\"', '"') or header)
        return said

    def patiently(
        self,
        ask: Callable[[], T],
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> T:
        """
        The result of *ask*, which may be asked again while the server does not answer or is overloaded.

        Only for what may be done twice: a read, an apply.

        Args:
            ask: makes calls.
            clock: monotonic seconds; replaced in tests.
            sleep: pauses; replaced in tests.

        Raises:
            ClusterGone: the server was silent for longer than `grace_s`.
        """
        start = clock()
        while True:
            try:
                return ask()
            except ClusterGone:
                if clock() - start >= self.grace_s:
                    raise
            except ClusterRefused as error:
                # 429 and 5xx: the server is there, but starting, stopping or swamped.
                if not (error.status == 429 or error.status >= 500) or clock() - start >= self.grace_s:
                    raise
            sleep(_AGAIN_AFTER_S)

    @property
    def kubectl(self) -> str:
        """The beginning of a kubectl command that speaks to this cluster, for advice that is pasted."""
        file = f"--kubeconfig {shlex.quote(str(self.kubeconfig))} " if self.kubeconfig else ""
        return f"kubectl {file}--context {shlex.quote(self.context)}"

    def _authorization(self) -> dict[str, str]:
        # Asked for every call: a token of a cloud is renewed when it has run out.
        settings = self._configuration.auth_settings().values()
        return {one["key"]: one["value"] for one in settings if one.get("in") == "header" and one.get("value")}

    def _gone(self, reason: str) -> ClusterGone:
        how = (
            "Is the cluster running? For kind: `docker ps` lists its node, `docker start NAME` brings a stopped one "
            f"back; then run the command again. `{self.kubectl} version` asks the same server."
        )
        return ClusterGone(self.server, context=self.context, reason=reason, since=self.last_answer, how=how)


def _refused(what: str, status: int, said: str) -> ClusterRefused:
    try:
        answer = json.loads(said)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        answer = {}
    message = str(answer.get("message") or said.strip()[:300] or "no reason given")
    how = "The cluster does not know this user: log in again, or choose another context." if status == 401 else ""
    return ClusterRefused(what, status=status, said=message, answer=answer, how=how)


def _plain(error: Exception) -> str:
    text = str(error)
    for sign, plain in (
        ("Connection refused", "connection refused, nothing listens there"),
        ("Name or service not known", "the host name cannot be resolved"),
        ("Temporary failure in name resolution", "the host name cannot be resolved"),
        ("nodename nor servname", "the host name cannot be resolved"),
        ("CERTIFICATE_VERIFY_FAILED", "its certificate is not that of the kubeconfig; was the cluster made anew?"),
        ("Network is unreachable", "the network is unreachable"),
        ("No route to host", "there is no route to the host"),
        ("Connection reset", "the connection was reset"),
        ("Connection aborted", "the connection was closed without an answer"),
        ("RemoteDisconnected", "the connection was closed without an answer"),
        ("UNEXPECTED_EOF", "the connection was closed without an answer"),
        ("onnect timeout", f"no connection within {_CONNECT_TIMEOUT_S} s"),
        ("timed out", "no answer in time"),
    ):
        if sign in text:
            return plain
    return f"{type(error).__name__}: {text[:200]}"
