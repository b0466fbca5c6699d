"""
The node image: Debian, kind's own start-up files, Kubernetes, and the images of the control plane inside.

It differs from the image that kind publishes in what the machine may lack: containerd and systemd never raise
limits or lower OOM scores, and containerd expects no AppArmor and no huge pages.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from labkit._proc import run
from labkit._wait import wait_until
from labkit.errors import ConfigInvalid
from tests.kind.rig.golang import KUBERNETES_VERSION
from tests.kind.rig.images import Entry, Image, Layer, write_archive, write_layer
from tests.kind.rig.packages import linked_files, program, unpacked

__all__ = ["NODE_IMAGE", "TOOLS_IMAGE", "Ingredients", "node_image"]

NODE_IMAGE = f"kindest/node:v{KUBERNETES_VERSION}"
# busybox, curl, iptables and kubectl: what the cluster's own helpers run in, and small test pods.
TOOLS_IMAGE = "localhost/labkit-rig/tools:1"

_FILES = Path(__file__).parent / "node"
_SERVERS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "etcd", "kubectl")
_BUSYBOX = ("sh", "cat", "mkdir", "rm", "mv", "ls", "sleep", "echo", "grep", "head", "tail", "dd", "id", "ip", "wc",
            "nslookup", "httpd", "hostname", "env", "true", "false", "touch", "chmod", "mount")  # fmt: skip
_IPTABLES = ("iptables", "iptables-save", "iptables-restore", "ip6tables", "ip6tables-save", "ip6tables-restore")
# In kind's file, and what takes its place; each must be there, or kind has changed.
_CONTAINERD_CONFIG = {
    "restrict_oom_score_adj = false": (
        "restrict_oom_score_adj = true\n  disable_apparmor = true\n  disable_hugetlb_controller = true"
    ),
}
_CONTAINERD_UNIT = {"/usr/local/bin/containerd": "/usr/bin/containerd", "OOMScoreAdjust=-999\n": ""}


@dataclass(frozen=True, slots=True)
class Ingredients:
    """What a node image is made from: an unpacked engine, a root's tar, compiled programs, kind's module."""

    engine: Path
    root_tar: Path
    kubernetes: Path
    coredns: Path
    pause: Path
    crictl: Path
    kind_module: Path


def node_image(made_of: Ingredients, out: Path) -> None:
    """
    Write the node image as the archive *out*.

    Raises:
        ConfigInvalid: kind's files are not those that this was written for.
        CommandFailed: a tool failed.
    """
    with tempfile.TemporaryDirectory(prefix="rig-node-", dir=out.parent) as temporary:
        work = Path(temporary)
        pause_image, archive = _cluster_images(made_of, work)
        store = work / "containerd"
        _preload(archive, store, made_of.engine)
        added = write_layer(
            work / "node.tar", [*_node_files(made_of, pause_image), *_below(store, "var/lib/containerd")]
        )
        image = Image(
            NODE_IMAGE,
            [Layer.of(made_of.root_tar), added],
            entrypoint=["/usr/local/bin/entrypoint", "/sbin/init"],
            # systemd asks for the first to know where it runs, and ends on the signal.
            env={"container": "docker"},
            stop_signal="SIGRTMIN+3",
        )
        write_archive(out, [image])


def _cluster_images(made_of: Ingredients, work: Path) -> tuple[str, Path]:
    """The images that kubeadm wants, in one archive; and the name of the one that pods are held open with."""
    one_binary = [Entry("usr/local/bin/kubernetes", file=made_of.kubernetes / "kubernetes")]
    one_binary += [Entry(f"usr/local/bin/{name}", link="kubernetes") for name in _SERVERS]
    kubernetes = write_layer(work / "kubernetes.tar", one_binary)
    with unpacked(made_of.root_tar) as root:
        tools = write_layer(work / "tools.tar", _tools(root))
    coredns = write_layer(work / "coredns.tar", [Entry("coredns", file=made_of.coredns / "coredns")])
    pause = write_layer(work / "pause.tar", [Entry("pause", file=made_of.pause / "pause")])
    layers: dict[str, tuple[list[Layer], list[str]]] = {
        "kube-proxy": ([tools, kubernetes], []),
        "coredns": ([coredns], ["/coredns"]),
        "pause": ([pause], ["/pause"]),
    }
    argv = [
        made_of.kubernetes / "kubeadm",
        "config",
        "images",
        "list",
        "--kubernetes-version",
        f"v{KUBERNETES_VERSION}",
    ]
    images, pause_image = [Image(TOOLS_IMAGE, [tools, kubernetes])], ""
    for tag in run(argv, timeout_s=60).split():
        short = tag.rpartition("/")[2].partition(":")[0]
        below, entrypoint = layers.get(short, ([kubernetes], []))
        images.append(Image(tag, below, entrypoint=entrypoint))
        pause_image = tag if short == "pause" else pause_image
    archive = work / "images.tar"
    write_archive(archive, images)
    return pause_image, archive


def _tools(root: Path) -> Iterator[Entry]:
    yield Entry("bin/busybox", file=root / "bin/busybox")
    yield from (Entry(f"bin/{name}", link="busybox") for name in _BUSYBOX)
    # kube-proxy balances with the match `statistic`, which alone needs libm: without it a Service with two
    # endpoints fails while everything else works.
    modules = [file.relative_to(root).as_posix() for file in sorted(root.glob("usr/lib/*/xtables/*.so"))]
    # curl, since the static busybox cannot look names up in order to connect to them.
    programs = ["usr/sbin/xtables-nft-multi", "usr/sbin/conntrack", "usr/bin/curl", *modules]
    yield from (Entry(path, file=file) for path, file in linked_files(root, programs).items())
    yield from (Entry(f"usr/sbin/{name}", link="xtables-nft-multi") for name in _IPTABLES)
    yield from (Entry(f"usr/local/bin/{name}", file=_FILES / name) for name in ("rig-network", "rig-storage"))
    yield Entry("etc/passwd", text="root:x:0:0:root:/root:/bin/sh\n", mode=0o644)
    yield Entry("etc/group", text="root:x:0:\n", mode=0o644)
    yield Entry("tmp", mode=0o1777)


def _node_files(made_of: Ingredients, pause_image: str) -> Iterator[Entry]:
    theirs = made_of.kind_module / "images" / "base" / "files"
    for file in sorted(theirs.rglob("*")):
        path = file.relative_to(theirs).as_posix()
        if file.is_file() and not path.startswith("LICENSES"):
            yield Entry(path, file=file, mode=0o755 if "/bin/" in path else 0o644)
    unit, config = "etc/systemd/system/containerd.service", "etc/containerd/config.toml"
    yield Entry(unit, text=_replaced(theirs / unit, _CONTAINERD_UNIT), mode=0o644)
    pause_line = next((line for line in (theirs / config).read_text().splitlines() if "sandbox_image" in line), "?")
    edits = {**_CONTAINERD_CONFIG, pause_line: f'  sandbox_image = "{pause_image}"'}
    yield Entry(config, text=_replaced(theirs / config, edits), mode=0o644)
    yield Entry("etc/containerd/cri-base.json", text=_base_spec(made_of.engine), mode=0o644)
    for name in ("kubelet", "containerd", "undo-mount-hacks"):
        wanted = f"etc/systemd/system/multi-user.target.wants/{name}.service"
        yield Entry(wanted, link=f"/etc/systemd/system/{name}.service")
    yield Entry("usr/bin/kubernetes", file=made_of.kubernetes / "kubernetes")
    yield from (Entry(f"usr/bin/{name}", link="kubernetes") for name in ("kubelet", "kubectl"))
    yield Entry("usr/bin/kubeadm", file=made_of.kubernetes / "kubeadm")
    yield Entry("usr/local/bin/crictl", file=made_of.crictl / "crictl")
    yield Entry("kind/version", text=f"v{KUBERNETES_VERSION}", mode=0o644)
    for name in ("default-cni.yaml", "default-storage.yaml"):
        text = (_FILES / name).read_text(encoding="utf-8").replace("TOOLS_IMAGE", TOOLS_IMAGE)
        yield Entry(f"kind/manifests/{name}", text=text, mode=0o644)


def _replaced(file: Path, edits: Mapping[str, str]) -> str:
    text = file.read_text(encoding="utf-8")
    missing = [old for old in edits if old not in text]
    if missing:
        problems = [f"expected {old!r} in it, which is not there" for old in missing]
        raise ConfigInvalid(f"kind's file {file.name}", problems=problems, how="Adapt tests/kind/rig/node_image.py.")
    for old, new in edits.items():
        text = text.replace(old, new)
    return text


def _base_spec(engine: Path) -> str:
    """What containerd starts every pod from, with kind's hook that hides the machine's identity."""
    spec = json.loads(run([program(engine, "ctr"), "oci", "spec"], timeout_s=60))
    spec.setdefault("hooks", {}).setdefault("createContainer", []).append({"path": "/kind/bin/mount-product-files.sh"})
    del spec["process"]["rlimits"]
    return json.dumps(spec)


def _below(folder: Path, into: str) -> Iterator[Entry]:
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            yield Entry(f"{into}/{file.relative_to(folder).as_posix()}", file=file, mode=0o644)


def _preload(archive: Path, store: Path, engine: Path) -> None:
    """Import the images of *archive* into a containerd store that a node starts with; nothing is unpacked."""
    with _containerd(store, engine) as ctr:
        ctr("-n", "k8s.io", "images", "import", "--label=io.cri-containerd.pinned=pinned", "--all-platforms",
            "--no-unpack", "--digests", str(archive))  # fmt: skip


@contextmanager
def _containerd(store: Path, engine: Path) -> Iterator[Callable[..., str]]:
    """A containerd of its own on the folder *store*; the value is called with the arguments of `ctr`."""
    with tempfile.TemporaryDirectory(prefix="rig-ctr-") as temporary:
        state = Path(temporary)
        socket, config = state / "sock", state / "config.toml"
        # The plugin that serves a kubelet would want a network.
        settings = 'version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
        settings += f'[plugins."io.containerd.internal.v1.opt"]\npath = "{state / "opt"}"\n'
        config.write_text(settings, encoding="utf-8")
        server = [program(engine, "containerd"), "--config", config, "--root", store, "--state", state / "run",
                  "--address", socket]  # fmt: skip
        client = [program(engine, "ctr"), "--address", socket]
        with (state / "log").open("wb") as log:
            process = subprocess.Popen([str(part) for part in server], stdout=log, stderr=subprocess.STDOUT)
        try:
            # ctr waits for ever for a socket that is not there.
            wait_until(socket.exists, "containerd listening", timeout_s=60, how=f"It said: {state / 'log'}")
            yield lambda *arguments: run([*client, *arguments], timeout_s=600)
        finally:
            process.terminate()
            process.wait(timeout=60)
