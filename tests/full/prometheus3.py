"""The programs of the Prometheus release that users download, compiled once from its module and kept in the cache."""

from __future__ import annotations

from pathlib import Path

from labkit.settings import load_settings
from labkit.stack import golang
from labkit.stack.catalogue import GoSource, load_catalogue

__all__ = ["PINNED", "compiled"]

PINNED = next(s.version for s in load_catalogue()["prometheus"].program.sources if s.kind == "release")  # type: ignore[union-attr]
# Prometheus 3.5.0 is version 0.305.0 of its Go module: one minor version per release, in hundreds for each major.
_SOURCE = GoSource(
    kind="go",
    module="github.com/prometheus/prometheus",
    package="cmd/prometheus",
    version=PINNED,
    module_version="0.{}{:02}.{}".format(*map(int, PINNED.split("."))),
    megabytes=400,
    cpu_s=400,
    ldflags="-X github.com/prometheus/common/version.Version=@{version}",
)


def compiled(name: str) -> Path:
    """The release's program *name*, such as `promtool`."""
    cache = load_settings().cache_dir
    binary = cache / "test-tools" / f"prometheus-{PINNED}" / name
    if not binary.exists():
        binary.parent.mkdir(parents=True, exist_ok=True)
        part = binary.with_name(f"{name}.part")
        golang.build(_SOURCE.model_copy(update={"package": f"cmd/{name}"}), part, cache=cache)
        part.rename(binary)
    return binary
