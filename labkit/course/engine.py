"""
How the batch runner executes notebooks.

It is papermill with a client that has a deadline for the whole notebook, bounded outputs, a look at the kernel's
pulse every second, and an orderly end on every way out.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty
from typing import Any

from jupyter_core.utils import run_sync
from nbclient.exceptions import CellTimeoutError
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, papermill_engines

from labkit.course.figure_notes import FIGURE_MIME
from labkit.course.results import FigureNote

__all__ = ["ENGINE", "Watch", "register_engine"]

ENGINE = "labkit"
_OUTPUTS = frozenset({"stream", "display_data", "execute_result", "update_display_data"})
_KERNEL_START_S = 120


@dataclass(slots=True)
class Watch:
    """
    One notebook's execution as the runner sees it.

    Attributes:
        deadline_s: limit for the whole notebook, in seconds, from `start()`.
        grace_s: after an interrupt, how long cells and exit handlers may clean up, in seconds.
        output_limit_bytes: what one cell may write; the rest is dropped, and the notebook says so.
        env: the kernel's environment.
        socket_dir: a private folder with a short name; system limits on socket names are near 100 characters.
        on_kernel: told the process id of the kernel.
        on_cell: told "start" or "end" and the index of a code cell.
    """

    deadline_s: float
    grace_s: float
    output_limit_bytes: int
    env: Mapping[str, str]
    socket_dir: Path
    on_kernel: Callable[[int], None]
    on_cell: Callable[[str, int], None]
    figures: list[FigureNote] = field(default_factory=list)
    cut_cells: list[int] = field(default_factory=list)
    running: int | None = None
    _ends_at: float = 0.0
    _written: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    _alts: dict[int, deque[str]] = field(default_factory=lambda: defaultdict(deque))

    def start(self) -> None:
        """The clock of the deadline starts."""
        self._ends_at = time.monotonic() + self.deadline_s

    def left_s(self) -> float:
        """Seconds to the deadline; a moment when it has passed, since nbclient reads 0 as no limit."""
        return max(0.05, self._ends_at - time.monotonic())

    def admits(self, message: dict[str, Any], cell_index: int) -> bool:
        """Whether an output message still fits within the cell's limit; the first that does not leaves a note."""
        before = self._written[cell_index]
        self._written[cell_index] = before + _size(message["content"])
        if self._written[cell_index] <= self.output_limit_bytes:
            return True
        if cell_index not in self.cut_cells:
            self.cut_cells.append(cell_index)
            limit = f"{self.output_limit_bytes / 1e6:g} MB"
            message["header"]["msg_type"] = message["msg_type"] = "stream"
            message["content"] = {"name": "stderr", "text": f"\n[output cut here: a cell may write {limit}]\n"}
            return True
        return False

    def note_figure(self, data: Mapping[str, Any], cell_index: int) -> None:
        """Keep what a figure says about itself; its picture follows in the same cell."""
        self.figures.append(FigureNote(cell_index, data["title"], data["alt"], list(data["missing"])))
        self._alts[cell_index].append(data["alt"])

    def label_picture(self, output: Any, cell_index: int) -> None:
        """Give a picture the alternative text that its figure announced."""
        if self._alts[cell_index] and "image/png" in output.get("data", {}):
            output["metadata"]["alt"] = self._alts[cell_index].popleft()


def _size(content: Mapping[str, Any]) -> int:
    if "text" in content:
        return len(content["text"])
    return sum(len(part) if isinstance(part, str) else 200 for part in content.get("data", {}).values())


class _Client(PapermillNotebookClient):  # type: ignore[misc]
    """The client that papermill uses, with the runner's watch over it."""

    def __init__(self, nb_man: Any, watch: Watch, **options: Any) -> None:
        super().__init__(nb_man, **options)
        self.watch = watch

    def create_kernel_manager(self) -> Any:
        # Unix sockets in a private folder: no ports to race for, and nobody else can talk to the kernel.
        manager = super().create_kernel_manager()
        manager.transport, manager.ip = "ipc", str(self.watch.socket_dir / "k")
        return manager

    async def async_start_new_kernel(self, **kwargs: Any) -> None:
        await super().async_start_new_kernel(**kwargs)
        # Exit handlers of the kernel stop what it started; nbclient's default leaves them two and a half seconds.
        self.km.shutdown_wait_time = self.watch.grace_s
        self.watch.on_kernel(int(self.km.provisioner.pid))

    start_new_kernel = run_sync(async_start_new_kernel)

    async def async_start_new_kernel_client(self) -> Any:
        client = await super().async_start_new_kernel_client()
        # A slow start of the interpreter is not the notebook's fault; it has a limit of its own.
        self.watch.start()
        return client

    start_new_kernel_client = run_sync(async_start_new_kernel_client)

    def papermill_execute_cells(self) -> None:
        try:
            super().papermill_execute_cells()
        except (CellTimeoutError, KeyboardInterrupt):
            if self.watch.running is not None:
                self.nb_man.cell_exception(self.nb.cells[self.watch.running], cell_index=self.watch.running)
                run_sync(self._settle)()
            raise

    async def _settle(self) -> None:
        """Interrupt the running cell, so that its `finally` and `with` blocks run, and wait until it is done."""
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await self.km.interrupt_kernel()
        ends_at = time.monotonic() + self.watch.grace_s
        while time.monotonic() < ends_at and await self.km.is_alive():
            try:
                reply = await self.kc.shell_channel.get_msg(timeout=0.5)
            except Empty:
                continue
            if reply["msg_type"] == "execute_reply":
                return

    def process_message(self, msg: dict[str, Any], cell: Any, cell_index: int) -> Any:
        note = msg["content"].get("data", {}).get(FIGURE_MIME) if msg["msg_type"] == "display_data" else None
        if note is not None:
            self.watch.note_figure(note, cell_index)
            return None
        if msg["msg_type"] in _OUTPUTS and not self.watch.admits(msg, cell_index):
            return None
        output = super().process_message(msg, cell, cell_index)
        if output is not None:
            self.watch.label_picture(output, cell_index)
        return output


class _Engine(NBClientEngine):  # type: ignore[misc]
    """Registered with papermill under `ENGINE`."""

    @classmethod
    def execute_managed_notebook(cls, nb_man: Any, kernel_name: str, *, watch: Watch, **_options: Any) -> None:
        def started(cell_index: int, **_: Any) -> None:
            watch.running = cell_index
            watch.on_cell("start", cell_index)

        def ended(cell_index: int, **_: Any) -> None:
            watch.running = None
            watch.on_cell("end", cell_index)

        client = _Client(
            nb_man,
            watch,
            kernel_name=kernel_name,
            startup_timeout=_KERNEL_START_S,
            timeout_func=lambda _cell: watch.left_s(),
            # Draining the output of a busy cell may take longer than nbclient's four seconds; late output is
            # kept, and the deadline bounds the wait.
            iopub_timeout=30,
            raise_on_iopub_timeout=False,
            coalesce_streams=True,
            extra_arguments=["--IPKernelApp.extra_extensions=labkit.course.figure_notes"],
            on_cell_execute=started,
            on_cell_executed=ended,
        )
        # What the interpreter itself says (a crash, a warning of ipykernel) is for the journal, not for the screen.
        with (watch.socket_dir / "kernel.log").open("wb") as log:
            client.execute(env=dict(watch.env), stdout=log, stderr=log)


def register_engine() -> str:
    """Make the engine known to papermill and return its name; harmless when repeated."""
    papermill_engines.register(ENGINE, _Engine)
    return ENGINE
