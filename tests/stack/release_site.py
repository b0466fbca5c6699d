"""A local server that behaves as a release site does: files, checksums, and the ways in which they go wrong."""

from __future__ import annotations

import hashlib
import http.server
import io
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

__all__ = ["ReleaseSite", "serve", "tarball"]


def tarball(folder: str, name: str, script: str) -> bytes:
    """A .tar.gz with one executable script, `folder/name`."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        data = script.encode()
        info = tarfile.TarInfo(f"{folder}/{name}")
        info.size, info.mode = len(data), 0o755
        tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


class ReleaseSite:
    """What the server has by path, which paths end half way (`cut`) or trickle (`slow`), and what was `asked`."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.cut: set[str] = set()
        self.slow: set[str] = set()
        self.asked: list[str] = []
        self.url = ""

    def publish(self, folder: str, name: str, content: bytes, *, listed: bytes | None = None) -> None:
        """Put a file and its checksum list; `listed` is the content whose sum is listed, if not the file's own."""
        self.files[f"/{folder}/{name}"] = content
        digest = hashlib.sha256(content if listed is None else listed).hexdigest()
        self.files[f"/{folder}/sha256sums.txt"] = f"{'0' * 64}  other.tar.gz\n{digest}  {name}\n".encode()


@contextmanager
def serve() -> Iterator[ReleaseSite]:
    """A release site on a free port of this machine, for the length of the block."""
    site = ReleaseSite()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.asked.append(self.path)
            content = site.files.get(self.path)
            if content is None:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.path in site.slow:
                self._trickle(content)
            else:
                self.wfile.write(content[: len(content) // 2] if self.path in site.cut else content)

        def _trickle(self, content: bytes) -> None:
            """Ten kilobytes a second, until the other side has enough."""
            pause = threading.Event()
            with suppress(OSError):
                for start in range(0, len(content), 1000):
                    self.wfile.write(content[start : start + 1000])
                    pause.wait(0.1)

        def log_message(self, *_args: object) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        site.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield site
        finally:
            server.shutdown()
            thread.join()
