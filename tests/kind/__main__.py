"""
All tests on real clusters: `python -m tests.kind [ARGUMENT OF PYTEST…]`.

Two pytest processes side by side, since most of a lab's time is waiting: one has the tests that share one lab on the
kind cluster `labkit`; the other has everything else, on clusters of other names.  What the second says is shown when
both are done.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from labkit.settings import files_root
from labkit.stack.progress import printer
from tests.kind.rig.engine import Engine, default_home
from tests.kind.rig.parts import build_parts

_HERE = Path(__file__).parent
_CACHE = files_root() / ".pytest_cache"
_FAILED = "v/cache/lastfailed"
_ENDS_WITHIN_S = 45
# In this order: the last ones restart the node, and delete the cluster.
ON_LABKIT = ("test_lab.py", "test_links.py", "test_notebooks.py", "test_lifecycle.py")
# Of these files, what makes clusters of its own.
ELSEWHERE = ("test_lifecycle.py::TestNothingIsMade", "test_lifecycle.py::TestFromNothing")


def main(arguments: list[str]) -> int:
    """Exit code of the worse of both processes."""
    engine, parts = Engine(default_home()), build_parts(printer(sys.stderr))
    was_up = engine.is_up()
    engine.up(parts)
    labs = [str(_HERE / name) for name in ON_LABKIT]
    elsewhere = [str(_HERE / name) for name in ELSEWHERE]
    rest = [*sorted({str(path) for path in _HERE.glob("test_*.py")} - set(labs)), *elsewhere]
    # Told apart by their place below the root, which is where pytest runs.
    left_out = [f"--deselect={_HERE.relative_to(files_root())}/{name}" for name in ELSEWHERE]
    # Not shuffled: modules that share a cluster stand together.
    pytest = [sys.executable, "-m", "pytest", "-m", "kind", "-p", "no:randomly", *arguments]
    beside = _CACHE / "beside"
    beside.mkdir(parents=True, exist_ok=True)
    try:
        with (beside / "output").open("w+b") as said:
            with (
                _Running([*pytest, "-o", f"cache_dir={beside}", *rest], said) as other,
                _Running([*pytest, *left_out, *labs]) as on,
            ):
                codes = [on.code(), other.code()]
            said.seek(0)
            sys.stdout.buffer.write(said.read())
            sys.stdout.flush()
    finally:
        if not was_up:
            engine.down()
    _remember_failures(beside)
    return max(codes)


def _remember_failures(beside: Path) -> None:
    """Add what failed there to what `pytest --last-failed` repeats."""
    known: dict[str, bool] = {}
    for cache in (_CACHE, beside):
        if (cache / _FAILED).exists():
            known |= json.loads((cache / _FAILED).read_text(encoding="utf-8"))
    (_CACHE / _FAILED).parent.mkdir(parents=True, exist_ok=True)
    (_CACHE / _FAILED).write_text(json.dumps(known, indent=2), encoding="utf-8")


class _Running:
    """A process that is waited for whatever happens, since it takes down what it made."""

    def __init__(self, argv: list[str], output: IO[bytes] | None = None) -> None:
        self._process = subprocess.Popen(argv, stdout=output)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            # Ctrl-C reaches both at once; a second one would end the taking down.
            self._process.wait(_ENDS_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.send_signal(signal.SIGINT)
            self._process.wait()

    def code(self) -> int:
        """Its exit code, when it has ended."""
        return abs(self._process.wait())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
