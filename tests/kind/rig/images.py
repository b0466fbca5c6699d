"""Container images written as files, without an engine: layers, a configuration, and a list of both in one tar."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Entry", "Image", "Layer", "write_archive", "write_layer"]

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Entry:
    """
    One thing in a layer: a file of this machine, a text, a link or, if nothing is given, a folder.

    Args:
        path: where it lies in the image, without a leading `/`.
        file: whose content it gets.
        text: its content.
        link: where a symbolic link leads.
        mode: permissions; those of folders and programs by default.
    """

    path: str
    file: Path | None = None
    text: str | None = None
    link: str | None = None
    mode: int = 0o755


@dataclass(frozen=True, slots=True)
class Layer:
    """A tar on disk, and the digest of its content."""

    path: Path
    sha256: str

    @classmethod
    def of(cls, path: Path) -> Layer:
        """The layer that a tar is."""
        with path.open("rb") as file:
            return cls(path, hashlib.file_digest(file, "sha256").hexdigest())


@dataclass(frozen=True, slots=True)
class Image:
    """An image: `tag` is its whole name, `layers` lie from the bottom up, the rest as in a Dockerfile."""

    tag: str
    layers: Sequence[Layer]
    entrypoint: Sequence[str] = ()
    command: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    stop_signal: str = ""

    def config(self) -> bytes:
        """Its configuration as JSON; the same image gives the same bytes."""
        env = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", **self.env}
        inner: dict[str, object] = {"Env": [f"{name}={value}" for name, value in env.items()]}
        if self.entrypoint:
            inner["Entrypoint"] = list(self.entrypoint)
        if self.command:
            inner["Cmd"] = list(self.command)
        if self.stop_signal:
            inner["StopSignal"] = self.stop_signal
        whole = {
            "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
            "os": "linux",
            "config": inner,
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer.sha256}" for layer in self.layers]},
        }
        return json.dumps(whole, sort_keys=True).encode()


def write_layer(out: Path, entries: Iterable[Entry]) -> Layer:
    """
    Write a layer; the same entries give the same bytes: sorted, owned by root, without times.

    Args:
        out: the tar.
        entries: its content; folders on the way to them are added, of two for one path the later counts.

    Raises:
        ValueError: a path leads out of the image.
    """
    by_path: dict[str, Entry] = {}
    for entry in entries:
        parts = entry.path.split("/")
        if not entry.path or entry.path.startswith("/") or ".." in parts:
            raise ValueError(f"a path in an image is relative and stays in it, this does not: {entry.path!r}")
        for depth in range(1, len(parts)):
            by_path.setdefault("/".join(parts[:depth]), Entry("/".join(parts[:depth])))
        by_path[entry.path] = entry
    with tarfile.open(out, "w", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted(by_path):
            _add(tar, by_path[path])
    return Layer.of(out)


def _add(tar: tarfile.TarFile, entry: Entry) -> None:
    info = tarfile.TarInfo(entry.path)
    info.mode = entry.mode
    if entry.link is not None:
        info.type, info.linkname = tarfile.SYMTYPE, entry.link
        tar.addfile(info)
    elif entry.text is not None:
        content = entry.text.encode()
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
    elif entry.file is not None:
        info.size = entry.file.stat().st_size
        with entry.file.open("rb") as file:
            tar.addfile(info, file)
    else:
        info.type = tarfile.DIRTYPE
        tar.addfile(info)


def write_archive(out: Path, images: Sequence[Image]) -> None:
    """
    Write *images* as one file that `docker load`, `kind load image-archive` and `ctr images import` read.

    Layers that several images share are in it once.

    Raises:
        ValueError: there is no image, or one has no layer: what reads the file would say so much later.
    """
    if not images or any(not image.layers for image in images):
        raise ValueError("an archive needs an image, and every image a layer")
    manifest: list[dict[str, object]] = []
    layers: dict[str, Layer] = {}
    with tarfile.open(out, "w", format=tarfile.PAX_FORMAT) as tar:
        for image in images:
            config = image.config()
            name = f"{hashlib.sha256(config).hexdigest()}.json"
            if all(item["Config"] != name for item in manifest):
                _add(tar, Entry(name, text=config.decode(), mode=0o644))
            layers.update({layer.sha256: layer for layer in image.layers})
            paths = [f"{layer.sha256}.tar" for layer in image.layers]
            manifest.append({"Config": name, "RepoTags": [image.tag], "Layers": paths})
        for layer in layers.values():
            _add(tar, Entry(f"{layer.sha256}.tar", file=layer.path, mode=0o644))
        _add(tar, Entry("manifest.json", text=json.dumps(manifest), mode=0o644))
