"""Calls to an API server when it is silent, away or in trouble; what one says when all is well is in tests/kind."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from labkit.errors import ClusterGone, ClusterRefused, ConfigInvalid
from labkit.stack.cluster import Cluster
from labkit.stack.cluster_wait import wait_ready
from labkit.stack.rights import Right, role_for

GOOD = (200, {"gitVersion": "v1.34.4"})
BUSY = (503, {"kind": "Status", "message": "the server is starting"})


def cluster_at(folder: Path, server: str, *, grace_s: float = 5, user: dict[str, Any] | None = None) -> Cluster:
    """A cluster by a kubeconfig with one context, `shop`."""
    content = {
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": user or {"token": "t0"}}],
        "contexts": [{"name": "shop", "context": {"cluster": "c", "user": "u"}}],
    }
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return Cluster(path, "shop", grace_s=grace_s)


class _Server(ThreadingHTTPServer):
    """Gives its answers one after the other, the last one for ever; remembers what it was asked."""

    daemon_threads = True

    def __init__(self, answers: list[tuple[int, object]]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers, self.asked = answers, list[tuple[str, str, str]]()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        self.server.asked.append((self.command, self.path, self.headers.get("Authorization", "")))
        answers = self.server.answers
        status, body = answers.pop(0) if len(answers) > 1 else answers[0]
        data = json.dumps(body).encode() if not isinstance(body, bytes) else body
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def serving(*answers: tuple[int, object]) -> Iterator[_Server]:
    """A server of these answers."""
    with _Server(list(answers)) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def free_port() -> int:
    """A port on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class TestGone:
    """An API server that does not answer."""

    def test_nothing_listens(self, tmp_path: Path, free_port: int) -> None:
        """Which server, of which context, that it never answered, what to do."""
        url = f"https://127.0.0.1:{free_port}"
        with pytest.raises(ClusterGone, match=r"nothing listens there \(it has not answered yet\)") as caught:
            cluster_at(tmp_path, url).version()

        assert (caught.value.server, caught.value.context, caught.value.since) == (url, "shop", None)
        assert "docker start" in str(caught.value)
        assert f"`kubectl --kubeconfig {tmp_path / 'kubeconfig'} --context shop version`" in str(caught.value)

    def test_it_listens_and_is_silent(self, tmp_path: Path) -> None:
        """The limit holds."""
        with socket.create_server(("127.0.0.1", 0)) as silent:
            cluster = cluster_at(tmp_path, f"http://127.0.0.1:{silent.getsockname()[1]}")
            start = time.monotonic()
            with pytest.raises(ClusterGone, match="no answer in time"):
                cluster.api.call("GET", "/version", timeout_s=0.5)

        assert time.monotonic() - start < 3

    def test_a_name_that_nobody_knows(self, tmp_path: Path) -> None:
        """As for a cluster of a cloud that was deleted."""
        with pytest.raises(ClusterGone, match="the host name cannot be resolved"):
            cluster_at(tmp_path, "https://nothing.invalid").version()

    def test_since_when_is_told(self, tmp_path: Path) -> None:
        """The time of the last answer, in UTC."""
        with serving(GOOD) as server:
            cluster = cluster_at(tmp_path, server.url)
            assert cluster.version() == "v1.34.4"
        with pytest.raises(ClusterGone, match=r"last answer at \d\d:\d\d:\d\d UTC") as caught:
            cluster.version()

        assert caught.value.since == cluster.api.last_answer
        assert caught.value.since is not None
        assert caught.value.since.tzinfo is not None

    def test_in_a_wait_it_may_be_silent_for_the_time_of_grace(self, tmp_path: Path, free_port: int) -> None:
        """And no longer, though the limit of the wait is far."""
        cluster = cluster_at(tmp_path, f"https://127.0.0.1:{free_port}", grace_s=1.5)
        start = time.monotonic()
        with pytest.raises(ClusterGone):
            wait_ready(cluster, "lab", timeout_s=600)

        assert 1.5 <= time.monotonic() - start < 6


class TestRefused:
    """An API server that says no."""

    def test_one_that_is_starting_is_asked_again(self, tmp_path: Path) -> None:
        """Until it is up; what it was asked was the same."""
        with serving(BUSY, (429, {"message": "slowly"}), (200, {"items": [{"a": 1}]})) as server:
            assert cluster_at(tmp_path, server.url).pods("lab", "app=x") == [{"a": 1}]

        assert server.asked == [("GET", "/api/v1/namespaces/lab/pods?labelSelector=app%3Dx", "Bearer t0")] * 3

    def test_one_that_stays_in_trouble_is_quoted(self, tmp_path: Path) -> None:
        """In its own words."""
        with serving(BUSY) as server, pytest.raises(ClusterRefused, match=r"HTTP 503.*the server is starting"):
            cluster_at(tmp_path, server.url, grace_s=0.5).pods("lab")

    def test_a_no_is_asked_once(self, tmp_path: Path) -> None:
        """Waiting makes nobody more welcome."""
        with serving((401, {"message": "Unauthorized"})) as server:
            with pytest.raises(ClusterRefused, match=r"\(HTTP 401\): Unauthorized\. .*log in again"):
                cluster_at(tmp_path, server.url).pods("lab")

            assert len(server.asked) == 1

    def test_an_answer_that_is_no_status(self, tmp_path: Path) -> None:
        """A proxy in between speaks HTML."""
        with serving((403, b"<h1>Login</h1>")) as server:
            with pytest.raises(ClusterRefused, match=r"HTTP 403.*<h1>Login</h1>") as caught:
                cluster_at(tmp_path, server.url).version()

            assert caught.value.answer == {}

    def test_what_is_not_there_is_none(self, tmp_path: Path) -> None:
        """No object, no labels, no log."""
        with serving((404, {"message": "not found"})) as server:
            cluster = cluster_at(tmp_path, server.url)

            assert cluster.get("/api/v1/namespaces/x") is None
            assert cluster.namespace_labels("x") is None
            assert cluster.pod_log("lab", "x") == ""
            assert cluster.delete_namespace("x", "id") is False


class TestKubeconfig:
    """What a kubeconfig may lack."""

    def test_no_such_context(self, tmp_path: Path) -> None:
        """The file and the context are named."""
        cluster_at(tmp_path, "https://127.0.0.1:1")
        with pytest.raises(ConfigInvalid, match=r"kubeconfig: 1 mistake.*\n.*context 'shoop' cannot be used"):
            Cluster(tmp_path / "kubeconfig", "shoop")

    def test_proxies_of_the_environment_are_for_the_outside(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free_port: int
    ) -> None:
        """An API server on loopback is asked directly."""
        for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{free_port}")
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        with serving(GOOD) as server:
            assert cluster_at(tmp_path, server.url).version() == "v1.34.4"

    def test_it_is_not_written(self, tmp_path: Path) -> None:
        """Also not by the client below."""
        with serving(GOOD) as server:
            cluster = cluster_at(tmp_path, server.url)
            before = (tmp_path / "kubeconfig").read_bytes()
            cluster.version()

        assert (tmp_path / "kubeconfig").read_bytes() == before


class TestRole:
    """The role that is shown to whoever lacks rights."""

    missing = (Right("", "pods", "get", "lab"), Right("", "pods/log", "get", "lab"),
               Right("apps", "deployments", "patch", "lab"), Right("", "namespaces", "create", ""))  # fmt: skip

    def test_where_the_namespace_is_there_it_stays_in_it(self) -> None:
        """Only what belongs to the cluster is granted on the cluster; both are bound to the user."""
        role, binding, cluster_role, cluster_binding = yaml.safe_load_all(role_for(self.missing, "lab", "ana"))

        assert [(rule["resources"], rule["verbs"]) for rule in role["rules"]] == [
            (["pods", "pods/log"], ["get"]),
            (["deployments"], ["patch"]),
        ]
        assert (role["kind"], role["metadata"]["namespace"]) == ("Role", "lab")
        assert cluster_role["rules"] == [{"apiGroups": [""], "resources": ["namespaces"], "verbs": ["create"]}]
        assert [one["subjects"][0]["name"] for one in (binding, cluster_binding)] == ["ana", "ana"]

    def test_before_there_is_a_namespace_it_is_one_of_the_cluster(self) -> None:
        """A Role would have no place."""
        kinds = [one["kind"] for one in yaml.safe_load_all(role_for(self.missing, "", ""))]

        assert kinds == ["ClusterRole", "ClusterRoleBinding"]

    def test_a_right_in_words(self) -> None:
        """As kubectl names resources."""
        assert str(self.missing[1]) == "get pods/log in namespace lab"
        assert str(self.missing[2]) == "patch deployments.apps in namespace lab"
        assert str(self.missing[3]) == "create namespaces in the cluster"
