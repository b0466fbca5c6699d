"""Docker's own client against sockets that do what engines in trouble do: nothing there, no right, no answer."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import socket
import socketserver
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from labkit.stack import engine
from labkit.stack.engine import EngineUnfit, check_engine, engine_findings, pull_problem

GIB = 1 << 30


@pytest.fixture
def docker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """The client of this machine, which no settings of its user reach."""
    found = shutil.which("docker")
    if found is None:
        pytest.skip("there is no docker client on PATH")
    for name in ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_TLS_VERIFY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "client"))
    return found


@contextmanager
def engine_that_says(place: Path, info: dict[str, Any]) -> Iterator[None]:
    """A socket at *place* that answers the two questions of `docker info`, for the length of the block."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(b"")

        def do_GET(self) -> None:
            self._answer(json.dumps(info).encode() if self.path.endswith("/info") else b"OK")

        def _answer(self, content: bytes) -> None:
            self.send_response(200)
            self.send_header("Api-Version", "1.41")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_args: object) -> None:
            """Say nothing."""

        def address_string(self) -> str:
            return "the client"

    with socketserver.ThreadingUnixStreamServer(str(place), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


def problem(docker: str) -> str:
    """The only thing that is wrong, with its remedy."""
    with pytest.raises(EngineUnfit) as caught:
        check_engine(100, docker=docker)
    assert len(caught.value.problems) == 1
    return str(caught.value)


def test_no_docker_on_path_is_said_with_where_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without the client, nothing else is asked."""
    monkeypatch.setenv("PATH", str(tmp_path))

    said = problem("docker")

    assert "it is not installed: no `docker` on PATH" in said
    assert "Install" in said


def test_a_socket_that_is_not_there_is_named(docker: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An engine that does not run: its address, who named it, and how to start it."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")

    said = problem(docker)

    assert f"nothing answers at unix://{tmp_path}/none.sock; DOCKER_HOST names this place" in said
    assert "Start it" in said


def test_a_socket_without_the_right_to_it_names_its_group(
    docker: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Another user than the socket's: the group to join is that of the socket, and not `docker` by habit."""
    if os.geteuid() != 0:
        pytest.skip("only root can be somebody else")
    folder = Path("/tmp") / f"labkit-engine-{os.getpid()}"
    folder.mkdir(mode=0o755)
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(folder / "docker.sock"))
            listener.listen()
            os.chown(folder / "docker.sock", 0, 4)  # adm
            (folder / "docker.sock").chmod(0o660)
            somebody = folder / "docker"
            somebody.write_text(f'#!/bin/sh\nexec setpriv --reuid=65534 --clear-groups {docker} "$@"\n')
            somebody.chmod(0o755)
            monkeypatch.setenv("DOCKER_HOST", f"unix://{folder}/docker.sock")
            monkeypatch.setenv("DOCKER_CONFIG", "/nonexistent")

            said = problem(str(somebody))
    finally:
        shutil.rmtree(folder)

    assert f"this user may not use its socket at unix://{folder}/docker.sock" in said
    assert "Join the group `adm` (`sudo usermod -aG adm $USER`)" in said
    assert "without root" in said


def test_a_socket_that_does_not_answer_ends_the_wait(
    docker: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An engine that hangs costs the limit and no more."""
    monkeypatch.setattr(engine, "_ANSWER_TIMEOUT_S", 1.0)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "mute.sock"))
        listener.listen()
        monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/mute.sock")

        said = problem(docker)

    assert "it did not answer within 1 s" in said


def test_too_little_memory_says_both_numbers(docker: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What Docker has and what is needed; exactly enough is enough."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/small.sock")
    with engine_that_says(tmp_path / "small.sock", {"ServerVersion": "29.0.1", "Name": "box", "MemTotal": 2 * GIB}):
        check_engine(2048, docker=docker)
        with pytest.raises(EngineUnfit, match=r"Docker has 2,048 MiB, 4,096 needed"):
            check_engine(4096, docker=docker)


def test_all_that_is_wrong_is_listed_at_once(docker: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Memory, disk and control groups: nobody has to try three times."""
    monkeypatch.setattr(engine, "_DISK_MB", 1e9)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/bad.sock")
    info = {
        "MemTotal": GIB,
        "DockerRootDir": str(tmp_path),
        "SecurityOptions": ["name=seccomp,profile=builtin", "name=rootless"],
        "CgroupVersion": "1",
    }
    with engine_that_says(tmp_path / "bad.sock", info), pytest.raises(EngineUnfit) as caught:
        check_engine(4096, docker=docker)

    assert [seen.split(":")[0] for seen, _ in caught.value.problems] == [
        "Memory for Docker",
        "Disk for Docker",
        "Control groups",
    ]
    assert all(advice for _, advice in caught.value.problems)


def test_the_disk_in_a_virtual_machine_is_not_guessed(
    docker: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Docker Desktop names a folder of its machine, which says nothing about a folder of that name here."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/desktop.sock")
    info = {"MemTotal": GIB, "DockerRootDir": "/var/lib/docker", "OperatingSystem": "Docker Desktop"}
    with engine_that_says(tmp_path / "desktop.sock", info):
        findings = engine_findings(4096, docker=docker)

    assert "Disk for Docker" not in [finding.what for finding in findings]
    assert "virtual machine" in next(f.advice for f in findings if f.what == "Memory for Docker")


def test_podman_under_dockers_name_is_told_apart(tmp_path: Path) -> None:
    """Its `info` has other keys, which would read as an engine without memory."""
    podman = tmp_path / "docker"
    podman.write_text("""#!/bin/sh\necho '{"host": {"memTotal": 1}, "version": {}}'\n""")
    podman.chmod(0o755)

    assert "Podman" in problem(str(podman))


@pytest.mark.skipif(sys.platform != "linux", reason="inotify is Linux's")
@pytest.mark.parametrize(("instances", "verdict"), [(99, "missing"), (128, "warning"), (512, "ok")])
def test_limits_of_inotify_are_shown_with_the_line_that_raises_them(
    tmp_path: Path, instances: int, verdict: str
) -> None:
    """The kernel's usual 128 is a warning; only what a single node was seen to exceed is refused."""
    (tmp_path / "max_user_instances").write_text(f"{instances}\n")
    (tmp_path / "max_user_watches").write_text("1048576\n")

    found, watches = engine._inotify(tmp_path)

    assert found.verdict == verdict
    assert ("sudo sysctl fs.inotify.max_user_instances=512" in found.advice) == (verdict != "ok")
    assert (watches.verdict, watches.advice) == ("ok", "")


@pytest.mark.parametrize(
    ("said", "meaning"),
    [
        ("toomanyrequests: You have reached your pull rate limit.", "rate limit"),
        ("dial tcp: lookup registry-1.docker.io on 127.0.0.53:53: no such host", "no network"),
        ("net/http: TLS handshake timeout", "no network"),
        ("manifest for kindest/node:v0 not found: manifest unknown: manifest unknown", "no such image"),
        ("exit code: 137", ""),
    ],
)
def test_why_an_image_was_not_pulled(said: str, meaning: str) -> None:
    """The registry's words and the network's are told apart; other failures are not taken for one of them."""
    assert meaning in pull_problem(said)
    assert bool(meaning) == bool(pull_problem(said))
