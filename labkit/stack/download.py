"""Files from release pages: whole and verified, or not at all."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import requests
import urllib3
from filelock import FileLock

from labkit._proc import given_up
from labkit.errors import ChecksumMismatch, DownloadFailed, NoSpace

__all__ = ["check_space", "fetch_verified", "mirrored"]

_CHUNK = 1 << 18
_TIMEOUT_S = (5, 30)
_HOW = "Check the network, set LABKIT_MIRROR to a mirror or a folder, or put the program on PATH yourself."


def mirrored(url: str, mirror: str) -> list[str]:
    """
    The addresses to try for *url*, in order: the mirror's first.

    >>> mirrored("https://github.com/a/b.tgz", "https://mirror.example/gh/")
    ['https://mirror.example/gh/a/b.tgz', 'https://github.com/a/b.tgz']
    """
    return [mirror.rstrip("/") + urlsplit(url).path, url] if mirror else [url]


def check_space(what: str, path: Path, need_mb: float) -> None:
    """
    Make sure that the disk under *path* has *need_mb* megabytes free.

    Raises:
        NoSpace: it has not.
    """
    existing = next(p for p in (path, *path.parents) if p.exists())
    free_mb = shutil.disk_usage(existing).free / 1e6
    if free_mb < need_mb:
        raise NoSpace(what, path=path, need_mb=need_mb, free_mb=free_mb)


def fetch_verified(url: str, checksums_url: str, target: Path, *, remembered: Path, mirror: str = "") -> str:
    """
    Download *url* to *target* and verify it against the publisher's list of SHA-256 sums.

    The sum is remembered by address: should the list change later, the file is refused.

    Args:
        url: the file.
        checksums_url: lines of `<sha256>  <file name>`, or one sum alone.
        target: written only when the file is whole and verified.
        remembered: JSON file of sums by address.
        mirror: an address or folder that is tried first, with the same path.

    Returns:
        The SHA-256 of the file, in hexadecimal.

    Raises:
        DownloadFailed: no address gave the file whole.
        ChecksumMismatch: the file is not the published one.
        NoSpace: the disk filled up.
    """
    failures: list[str] = []
    for address, sums_address in zip(mirrored(url, mirror), mirrored(checksums_url, mirror), strict=True):
        try:
            expected = _published_sum(sums_address, Path(urlsplit(url).path).name)
            actual = _fetch(address, target)
        except (requests.RequestException, DownloadFailed, FileNotFoundError) as error:
            failures.append(f"{urlsplit(address).netloc or address}: {_reason(error)}")
            continue
        _verify(url, actual, expected, target, remembered)
        return actual
    raise DownloadFailed(url, reason="; ".join(failures), how=_HOW)


def _reason(error: Exception) -> str:
    if isinstance(error, DownloadFailed):
        return error.reason
    text = str(error)
    if "resolve" in text or "resolution" in text:
        return "the host name cannot be resolved"
    return "no connection" if isinstance(error, requests.ConnectionError) else text.splitlines()[0][:160]


def _open(address: str) -> tuple[Iterator[bytes], int | None]:
    """The bytes at an address or path, and how many there should be."""
    if "://" not in address:
        path = Path(address)
        return iter([path.read_bytes()]), path.stat().st_size
    response = requests.get(address, stream=True, timeout=_TIMEOUT_S)
    if response.status_code != 200:
        response.close()
        raise DownloadFailed(address, reason=f"HTTP {response.status_code} {response.reason}", how=_HOW)
    length = response.headers.get("Content-Length")
    # Raw bytes: a Content-Encoding would make the length and the published sum those of another file.
    return response.raw.stream(_CHUNK, decode_content=False), int(length) if length else None


def _published_sum(address: str, name: str) -> str:
    chunks, _ = _open(address)
    lines = b"".join(chunks).decode(errors="replace").split("\n")
    for line in lines:
        digest, _, file_name = line.strip().partition(" ")
        if file_name.strip().lstrip("*").removeprefix("./") == name and len(digest) == 64:
            return digest.lower()
    # A list for one file may hold the sum alone.
    alone = [line.strip() for line in lines if line.strip()]
    if len(alone) == 1 and re.fullmatch(r"[0-9a-fA-F]{64}", alone[0]):
        return alone[0].lower()
    raise DownloadFailed(address, reason=f"it has no SHA-256 of {name}", how=_HOW)


def _fetch(address: str, target: Path) -> str:
    part = target.with_name(target.name + ".part")
    digest, size = hashlib.sha256(), 0
    try:
        chunks, expected_size = _open(address)
        with part.open("wb") as file:
            for chunk in chunks:
                if given_up():
                    raise DownloadFailed(address, reason="interrupted", how="Try again.")
                file.write(chunk)
                digest.update(chunk)
                size += len(chunk)
        if expected_size is not None and size != expected_size:
            raise DownloadFailed(
                address, reason=f"the connection ended after {size:,} of {expected_size:,} bytes", how=_HOW
            )
        part.replace(target)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            free_mb = shutil.disk_usage(target.parent).free / 1e6
            raise NoSpace(
                f"Downloading {target.name}", path=target.parent, need_mb=size / 1e6 + 1, free_mb=free_mb
            ) from error
        raise
    except urllib3.exceptions.HTTPError as error:
        raise DownloadFailed(address, reason=f"the connection broke after {size:,} bytes", how=_HOW) from error
    finally:
        part.unlink(missing_ok=True)
    return digest.hexdigest()


def _verify(url: str, actual: str, expected: str, target: Path, remembered: Path) -> None:
    with FileLock(f"{remembered}.lock"):
        known: dict[str, str] = json.loads(remembered.read_text()) if remembered.exists() else {}
        for digest, source in (
            (expected, "the publisher's list"),
            (known.get(url), "an earlier download of this address"),
        ):
            if digest is not None and digest != actual:
                target.unlink(missing_ok=True)
                raise ChecksumMismatch(url, expected=digest, actual=actual, source=source)
        write_atomically(remembered, json.dumps({**known, url: actual}, indent=1, sort_keys=True))


def write_atomically(path: Path, text: str, *, mode: int = 0o644) -> None:
    """Replace the file at *path* by *text*: a reader, or a crash, sees the old text or the new, never a part."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.touch(mode=mode)
    part.write_text(text, encoding="utf-8")
    part.replace(path)
