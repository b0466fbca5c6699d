"""
What `labkit.observe.pod_logs` asks of the Kubernetes API: pods, changes of pods, logs of containers.

Over plain HTTP with the service account of the pod, so that our image needs no client library.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import requests

from labkit.errors import ConfigInvalid, RequestFailed

__all__ = ["ACCOUNT", "PodApi", "api_url"]

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where a pod finds token, authority and namespace of its service account."""

# A server that went away without a word is noticed after this: streams are silent for as long as containers are.
_SILENCE_S = 30
_ANSWER_S = 10
_WATCH_S = 25
_HOW = "The role must allow get, list and watch of pods, and get of pods/log."


@dataclass(frozen=True, slots=True)
class PodApi:
    """
    The pods of one namespace.

    Args:
        url: of the API server.
        namespace: of the pods.
        token_file: read for every request, because the token in it is renewed.
        ca_file: authority that signed the server's certificate.
        selector: labels of the pods.
    """

    url: str
    namespace: str
    token_file: Path
    ca_file: Path
    selector: str = "app.kubernetes.io/part-of=labkit"

    def pods(self) -> tuple[list[dict[str, Any]], str]:
        """All of them, and the version from which `changes` goes on."""
        with self._get("pods", {"labelSelector": self.selector}) as answer:
            found = answer.json()
        return found["items"], found["metadata"]["resourceVersion"]

    def changes(self, version: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """
        ADDED, MODIFIED, DELETED or BOOKMARK with the pod, as it happens; ends after half a minute.

        Raises:
            RequestFailed: status 410 if the server no longer knows *version*: list again.
        """
        asked = {"labelSelector": self.selector, "watch": "1", "allowWatchBookmarks": "true"}
        with self._get("pods", {**asked, "resourceVersion": version, "timeoutSeconds": str(_WATCH_S)}) as answer:
            for line in answer.iter_lines():
                event = json.loads(line)
                if event["type"] == "ERROR":
                    status = event["object"]
                    raise RequestFailed("GET", answer.url, status=status.get("code"), reason=status.get("message", ""))
                yield event["type"], event["object"]

    def pod(self, name: str) -> dict[str, Any] | None:
        """The pod as it is now; None if there is none."""
        try:
            with self._get(f"pods/{name}", {}) as answer:
                found: dict[str, Any] = answer.json()
                return found
        except RequestFailed as error:
            if error.status == 404:
                return None
            raise

    def log(self, pod: str, container: str, *, since_s: int, follow: bool, previous: bool) -> Iterator[bytes]:
        """
        What the container wrote, each line with its time, in pieces as they come.

        Args:
            pod: its name.
            container: its name.
            since_s: only lines of this second (since 1970) and later; 0 is everything.
            follow: go on until the container ends.
            previous: of the container before its last restart.
        """
        asked = {"container": container, "timestamps": "true"}
        asked |= {"follow": "true"} if follow else {}
        asked |= {"previous": "true"} if previous else {}
        asked |= {"sinceTime": f"{datetime.fromtimestamp(since_s, UTC):%Y-%m-%dT%H:%M:%SZ}"} if since_s else {}
        with self._get(f"pods/{pod}/log", asked) as answer:
            yield from answer.iter_content(chunk_size=None)

    @contextmanager
    def _get(self, what: str, asked: Mapping[str, str]) -> Iterator[requests.Response]:
        """An answer whose body is read as it comes; every failure is a RequestFailed."""
        url = f"{self.url}/api/v1/namespaces/{self.namespace}/{what}"
        with requests.Session() as session:
            session.trust_env = False
            try:
                session.headers["Authorization"] = f"Bearer {self.token_file.read_text(encoding='utf-8').strip()}"
                with session.get(
                    url, params=asked, stream=True, verify=str(self.ca_file), timeout=(_ANSWER_S, _SILENCE_S)
                ) as answer:
                    _check(answer)
                    yield answer
            except RequestFailed:
                raise
            except (requests.RequestException, OSError, ValueError) as error:
                reason = f"{type(error).__name__}: {str(error)[:200]}"
                raise RequestFailed("GET", url, status=None, reason=reason) from error


def _check(answer: requests.Response) -> None:
    if answer.status_code >= 400:
        said = answer.text.strip()[:300] or answer.reason
        how = _HOW if answer.status_code in {401, 403} else ""
        raise RequestFailed("GET", answer.url, status=answer.status_code, reason=said, how=how)


def api_url(environ: Mapping[str, str]) -> str:
    """
    Where a pod reaches the API server, by the variables that every container has.

    Raises:
        ConfigInvalid: this is no pod.
    """
    host, port = environ.get("KUBERNETES_SERVICE_HOST", ""), environ.get("KUBERNETES_SERVICE_PORT", "")
    if not host or not port:
        problem = "KUBERNETES_SERVICE_HOST or KUBERNETES_SERVICE_PORT is missing"
        raise ConfigInvalid("The environment of pod_logs", problems=[problem], how="Outside of a pod, give --api.")
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
