"""What comes from Debian: the engine, unpacked and not installed, and the roots of images."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from labkit._proc import run
from labkit.errors import ToolMissing
from labkit.stack import apt
from tests.kind.rig.cache import digest

__all__ = [
    "ENGINE_PACKAGES",
    "NODE_ROOT",
    "PYTHON_ROOT",
    "STACK_ROOT",
    "STACK_VERSIONS",
    "Root",
    "fetch_engine",
    "linked_files",
    "make_root",
    "program",
    "unpacked",
]

# Bookworm, whatever this machine runs: its containerd and systemd are the last that ask nothing of cgroup v2.
SUITE = "bookworm"
ENGINE_PACKAGES = ("docker.io", "containerd", "runc", "iptables", "iproute2", "mmdebstrap")
_ROOT_TIMEOUT_S = 1800


@dataclass(frozen=True, slots=True)
class Root:
    """The root of an image: the smallest Debian, *packages*, and what is then changed below `$1` by *hook*."""

    name: str
    packages: tuple[str, ...]
    hook: str

    @property
    def key(self) -> str:
        """The digest of what it is made from; newer versions of the packages do not make it another root."""
        return digest(SUITE, self.name, " ".join(self.packages), self.hook)


# What kind's own base image holds, as far as Debian has it, and busybox for the small images of the cluster.
NODE_ROOT = Root(
    "node-root",
    ("systemd", "systemd-sysv", "dbus", "iptables", "iproute2", "ethtool", "socat", "conntrack", "util-linux", "mount",
     "kmod", "libseccomp2", "pigz", "bash", "ca-certificates", "curl", "jq", "procps", "containerd", "runc",
     "containernetworking-plugins", "hostname", "ebtables", "busybox-static"),
    # As kind does: a node starts nothing on its own but what kind enables.
    """set -e; cd "$1"
rm -f lib/systemd/system/sysinit.target.wants/systemd-tmpfiles-setup.service
rm -f lib/systemd/system/multi-user.target.wants/* lib/systemd/system/local-fs.target.wants/*
rm -f lib/systemd/system/basic.target.wants/* etc/systemd/system/*.wants/*
rm -f lib/systemd/system/sockets.target.wants/*udev* lib/systemd/system/sockets.target.wants/*initctl*
echo ReadKMsg=no >> etc/systemd/journald.conf
ln -sf /dev/null etc/systemd/system/systemd-binfmt.service
mkdir -p opt/cni/bin etc/kubernetes/manifests
cp usr/lib/cni/* opt/cni/bin/""",
)  # fmt: skip
PYTHON_ROOT = Root(
    "python-root",
    ("python3", "python3-venv", "python-is-python3", "ca-certificates"),
    # The public Python images have pip, which may install into the system: a Dockerfile must build on either.  The
    # wheel that python3-venv brings takes a tenth of the space of the package python3-pip.
    """set -e; cd "$1"
rm -f usr/lib/python3.*/EXTERNALLY-MANAGED
python3 -m zipfile -e usr/share/python-wheels/pip-*.whl usr/lib/python3/dist-packages
printf '#!/bin/sh\\nexec python3 -m pip "$@"\\n' > usr/local/bin/pip
chmod 755 usr/local/bin/pip""",
)
# What bookworm has for as long as it lives: of a server only the last part of its version changes there.
STACK_VERSIONS = {"mariadb": "10.11", "redis": "7.0"}
STACK_ROOT = Root(
    "stack-root",
    # One root for three servers: it is loaded once, and Debian below them takes as much room as they do.
    ("mariadb-server-core", "mariadb-client-core", "redis-server", "openjdk-17-jre-headless", "busybox-static"),
    f"""set -e
chroot "$1" mariadbd --version | grep -F ' {STACK_VERSIONS["mariadb"]}.'
chroot "$1" redis-server --version | grep -F ' v={STACK_VERSIONS["redis"]}.'""",
)


def fetch_engine(into: Path, *, cache: Path) -> None:
    """
    Unpack Docker and its friends below the empty folder *into*.

    Raises:
        ToolMissing: this is no Debian-like system.
        CommandFailed: a package could not be had.
    """
    apt.unpack(ENGINE_PACKAGES, into, state=cache / "apt")


def program(engine: Path, name: str) -> Path:
    """
    A program of the engine: unpacked, or the system's own where a package was installed already.

    Raises:
        ToolMissing: neither has it.
    """
    folders = [str(engine / folder) for folder in ("usr/bin", "usr/sbin")]
    found = shutil.which(name, path=":".join([*folders, os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"]))
    if found is None:
        how = f"Delete {engine} and build again."
        raise ToolMissing(name, wanted_version="from Debian", tried=[f"{engine} and PATH: not found"], how=how)
    return Path(found)


def make_root(root: Root, out: Path, *, engine: Path) -> None:
    """
    Write *root* as the tar *out*; only root may do this.

    Args:
        root: what it holds.
        out: the tar; without documentation and translations.
        engine: what `fetch_engine` unpacked.

    Raises:
        CommandFailed: a package could not be had or installed.
    """
    left_out = ["/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*"]
    # It calls its own helpers by name.
    path = f"{engine / 'usr/bin'}:{os.environ.get('PATH', os.defpath)}"
    run(
        [
            program(engine, "mmdebstrap"), "--quiet", "--variant=minbase",
            '--aptopt=APT::Install-Recommends "false"', f"--include={','.join(root.packages)}",
            *(f"--dpkgopt=path-exclude={pattern}" for pattern in left_out),
            # Without their manual pages some packages still link them, and Java's fails for want of the folder.
            "--essential-hook=mkdir -p \"$1/usr/share/man/man1\"",
            f"--customize-hook={root.hook}", SUITE, out,
        ],
        timeout_s=_ROOT_TIMEOUT_S,
        env={**os.environ, "PATH": path},
    )  # fmt: skip


def linked_files(root: Path, programs: Sequence[str]) -> dict[str, Path]:
    """
    *programs* and the libraries that they are linked with: file on this machine by path in the image.

    Args:
        root: an unpacked root.
        programs: paths below it, of programs and of shared objects that those open while they run.

    Raises:
        CommandFailed: one of them is not there, or needs no library at all.
    """
    paths = dict.fromkeys(f"/{program}" for program in programs)
    for line in run(["chroot", root, "ldd", *paths], timeout_s=60).splitlines():
        # "libm.so.6 => /lib/…/libm.so.6 (0x…)" or "/lib64/ld-linux….so.2 (0x…)"; headings end with a colon.
        words = [word for word in line.split() if word.startswith("/") and not word.endswith(":")]
        paths.update(dict.fromkeys(words))
    real = run(["chroot", root, "realpath", *paths], timeout_s=60).split()
    return {path.lstrip("/"): root / target.lstrip("/") for path, target in zip(paths, real, strict=True)}


@contextmanager
def unpacked(root_tar: Path) -> Iterator[Path]:
    """A root unpacked in a temporary folder, which is gone after the `with`."""
    with tempfile.TemporaryDirectory(prefix="rig-root-") as folder:
        run(["tar", "-C", folder, "-xf", root_tar], timeout_s=600)
        yield Path(folder)
