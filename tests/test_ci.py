"""What CI runs tells the truth: one more try for what was late, by name; a failure that repeats fails the whole."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from labkit.settings import files_root

_MAKEFILE = """test:
\t@.venv/bin/python -m pytest -m "not full and not bench and not kind"
test-built:
\t@.venv/bin/python -m pytest -m full
test-kind:
\t@.venv/bin/python -m pytest -m kind
"""
_CONFIG = "[pytest]\nmarkers =\n  full: x\n  bench: x\n  kind: x\n"
_GOOD = "import pytest\n\ndef test_good():\n    assert True\n\n@pytest.mark.full\ndef test_whole():\n    assert True\n"
_GOOD += "\n@pytest.mark.kind\ndef test_on_a_cluster():\n    assert True\n"
_LATE = """
from pathlib import Path

def test_late():
    seen = Path(__file__).with_suffix(".seen")
    first = not seen.exists()
    seen.touch()
    assert not first
"""
_WRONG = "\ndef test_wrong():\n    assert 1 == 2\n"


@pytest.mark.parametrize(
    ("tests", "code", "closing"),
    [
        (_GOOD, 0, "3 passed, 0 failed, 0 skipped"),
        (_GOOD + _LATE, 0, "4 passed, 0 failed, 0 skipped"),
        (_GOOD + _WRONG, 1, "3 passed, 1 failed, 0 skipped"),
        (_GOOD + "\ndef broken(:\n", 1, "0 passed, 3 failed, 0 skipped"),
    ],
    ids=["all good", "late once", "wrong twice", "does not even import"],
)
def test_the_closing_line_counts_what_happened(tmp_path: Path, tests: str, code: int, closing: str) -> None:
    """Passed at the second try passes and is named; failed twice fails; a suite without a test that ran fails."""
    (tmp_path / ".ci").mkdir()
    shutil.copy(files_root() / ".ci" / "run", tmp_path / ".ci" / "run")
    (tmp_path / "Makefile").write_text(_MAKEFILE, encoding="utf-8")
    (tmp_path / "pytest.ini").write_text(_CONFIG, encoding="utf-8")
    (tmp_path / "test_it.py").write_text(tests, encoding="utf-8")
    (tmp_path / ".venv").symlink_to(sys.prefix)
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV_"))}
    env["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    argv = ["bash", str(tmp_path / ".ci" / "run")]

    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False, env=env)

    assert (done.returncode, done.stdout.splitlines()[-1]) == (code, closing)
    assert ("second try" in done.stdout) == (_LATE in tests or _WRONG in tests or code == 1)
