"""What labkit says when kind fails, and what its configuration promises; no engine is needed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from labkit.errors import CommandFailed, SetupError, ToolMissing
from labkit.settings import files_root, load_settings
from labkit.stack.acquire import acquire
from labkit.stack.catalogue import Tool, load_tools
from labkit.stack.kind import KindCluster, Node
from labkit.stack.tools import kind_tool, kubectl_tool
from tests.stack.release_site import serve

DOCKER = """#!/bin/sh
# An engine without containers.
echo "docker $*" >> "$LOG"
"""
KIND = """#!/bin/sh
echo "kind $*" >> "$LOG"
[ "$1" = create ] || exit 0
cat "$SAID" >&2
exit 1
"""


@pytest.fixture
def failing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KindCluster:
    """A cluster whose kind says what stands in the file `said`, and fails; what is called stands in `log`."""
    for name, text in {"docker": DOCKER, "kind": KIND}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("LOG", str(tmp_path / "log"))
    monkeypatch.setenv("SAID", str(tmp_path / "said"))
    return KindCluster("lab", tmp_path / "kubeconfig", tmp_path / "kind")


def test_the_configuration_opens_nothing_beyond_loopback() -> None:
    """One node, the API server on 127.0.0.1 at a free port, and no port mapped to elsewhere."""
    config = yaml.safe_load((files_root() / "infra" / "kind" / "cluster.yaml").read_text())

    assert config["networking"] == {"apiServerAddress": "127.0.0.1"}
    assert config["nodes"] == [{"role": "control-plane"}]


@pytest.mark.parametrize(
    ("said", "cause"),
    [
        (
            ('ERROR: failed to create cluster: command "docker run ..." failed with error: exit status 125\n'
            "docker: Error response from daemon: driver failed programming external connectivity on endpoint "
            "lab-control-plane: Bind for 127.0.0.1:6443 failed: port is already allocated."),
            "port 6443 is taken",
        ),
        (
            ("docker: Error response from daemon: failed to set up container networking: failed to listen on TCP "
            "socket: listen tcp4 127.0.0.1:38211: bind: address already in use"),
            "port 38211 is taken",
        ),
        ("write /var/lib/docker/tmp/GetImageBlob1: no space left on device", "the disk of Docker is full"),
        (
            ('ERROR: failed to create cluster: failed to pull image "kindest/node:v1.34.0": exit status 1\n'
            "Error response from daemon: toomanyrequests: You have reached your pull rate limit"),
            "image of its node, kindest/node:v1.34.0, cannot be pulled: the registry's limit of pulls is used up",
        ),
        ("ERROR: failed to create cluster: could not find a log line that matches \"Reached target\"", "did not boot"),
    ],
)  # fmt: skip
def test_a_failure_says_its_cause_and_leaves_nothing(
    failing: KindCluster, tmp_path: Path, said: str, cause: str
) -> None:
    """What people can change is named in the first sentence; the cluster is deleted after the attempt."""
    (tmp_path / "said").write_text(said)

    with pytest.raises(SetupError) as caught:
        failing.create()

    assert cause in str(caught.value)
    calls = (tmp_path / "log").read_text().splitlines()
    assert [call.split()[1] for call in calls if call.startswith("kind")] == ["create", "delete"]
    assert all(f"--kubeconfig {tmp_path}/kubeconfig" in call for call in calls if call.startswith("kind"))


def test_any_other_failure_hands_on_what_kind_said(failing: KindCluster, tmp_path: Path) -> None:
    """Nothing is guessed: the words of kind are in the error, from its first line on."""
    (tmp_path / "said").write_text("ERROR: something new\n" + "goroutine\n" * 100)

    with pytest.raises(CommandFailed) as caught:
        failing.create()

    assert caught.value.stderr_tail.startswith("ERROR: something new")


def test_nodes_are_listed_with_those_that_stopped(failing: KindCluster, tmp_path: Path) -> None:
    """A stopped node is a node: the cluster exists."""
    rows = ['{"Names":"lab-worker","State":"running"}', '{"Names":"lab-control-plane","State":"exited"}']
    (tmp_path / "docker").write_text("#!/bin/sh\n" + "".join(f"echo '{row}'\n" for row in rows))

    assert failing.nodes() == [Node("lab-control-plane", running=False), Node("lab-worker", running=True)]
    assert failing.exists()


def test_without_docker_the_error_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And does not say that there is no cluster: nobody looked."""
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(ToolMissing, match="docker"):
        KindCluster("lab", tmp_path / "kubeconfig", tmp_path / "kind").exists()


def test_tools_name_sources_for_every_system() -> None:
    """Each has a release with a published sum for Linux and macOS, by version and without a moving name."""
    assert set(load_tools()) == {"kind", "kubectl"}
    for tool in load_tools().values():
        assert tool.program is not None
        release = tool.program.sources[0]
        assert release.kind == "release"
        assert {"@{os}", "@{arch}"} <= {part for part in ("@{os}", "@{arch}") if part in release.url}
        assert release.checksums.startswith(release.url)
        assert tool.program.accepts(release.version)


def test_a_sum_that_stands_alone_is_read_and_held(tmp_path: Path) -> None:
    """As kubectl's: a file with the sum and no name; the program is refused when it does not fit."""
    script = b"#!/bin/sh\necho 'Client Version: v1.34.4'\n"
    with serve() as site:
        site.publish("bin", "kubectl", script)
        listed = site.files.pop("/bin/sha256sums.txt").splitlines()[1].split()[0]
        tool = _kubectl_at(site.url)
        site.files["/bin/kubectl.sha256"] = b"0" * 64
        with pytest.raises(ToolMissing, match="publisher's list says 0000"):
            acquire(tool, load_settings({"cache_dir": tmp_path / "refused"}))

        site.files["/bin/kubectl.sha256"] = listed
        installed = acquire(tool, load_settings({"cache_dir": tmp_path / "cache"}))

    assert (installed.version, installed.source) == ("1.34.4", "release")
    assert installed.path.is_relative_to(tmp_path / "cache")


def test_tools_on_path_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is fetched when both are here in accepted versions."""
    for name, says in {"kind": "kind v0.30.0 go1.25 linux/amd64", "kubectl": "Client Version: v1.33.1"}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\necho '{says}'\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    settings = load_settings({"cache_dir": tmp_path / "cache", "mirror": str(tmp_path)})

    assert (kind_tool(settings), kubectl_tool(settings)) == (tmp_path / "kind", tmp_path / "kubectl")
    assert not (tmp_path / "cache").exists()


def _kubectl_at(url: str) -> Tool:
    """The program under another name, so that one on PATH is not found."""
    return Tool.model_validate(
        {
            "name": "kubectl",
            "title": "kubectl",
            "about": "a test",
            "program": {
                "commands": ["kubectl-of-a-test"],
                "accepted": ">=1.28,<2",
                "version": {"args": ["version", "--client"], "pattern": r"Client Version: v(\d+\.\d+\.\d+)"},
                "sources": [
                    {
                        "kind": "release",
                        "version": "1.34.4",
                        "url": f"{url}/bin/kubectl",
                        "checksums": f"{url}/bin/kubectl.sha256",
                        "binary": "kubectl",
                        "megabytes": 1,
                    }
                ],
            },
        }
    )
