"""
Make the virtual environment `.venv` from nothing but Python 3.11 or later.

Uses uv where it can be had (it installs in seconds) and pip otherwise.  Safe to repeat: does nothing
when pyproject.toml and constraints.txt are unchanged since the last time.

    python3 tools/setup.py           make or update .venv
    python3 tools/setup.py --check   say whether it is up to date (exit code 1 if not)
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / ".setup-stamp"
BIN = VENV / "bin"


def say(text: str) -> None:
    """Progress, at once even into a pipe."""
    print(text, flush=True)


def fingerprint() -> str:
    """What the environment was made from."""
    parts = [(ROOT / name).read_bytes() for name in ("pyproject.toml", "constraints.txt")]
    return hashlib.sha256(b"\0".join([*parts, sys.version.encode()])).hexdigest()


def up_to_date() -> bool:
    """Whether .venv is there and was made from these files."""
    return (BIN / "python").exists() and STAMP.is_file() and STAMP.read_text() == fingerprint()


def step(what: str, argv: list[str | Path]) -> bool:
    """Run one command; say what it was for, how long it took and, when it failed, what it said."""
    start = time.monotonic()
    print(f" • {what} …", end="", flush=True)
    done = subprocess.run([str(a) for a in argv], capture_output=True, text=True, check=False)
    took = f"{time.monotonic() - start:.1f} s"
    if done.returncode == 0:
        say(f"\r ✓ {what} ({took})   ")
        return True
    say(f"\r ✗ {what} ({took})   ")
    say("   " + "\n   ".join((done.stderr or done.stdout).strip().splitlines()[-8:]))
    return False


def make_venv() -> bool:
    """An empty environment with pip; on a Debian without `python3-venv`, root gets that package first."""
    if (BIN / "pip").exists():
        return True
    shutil.rmtree(VENV, ignore_errors=True)
    argv: list[str | Path] = [sys.executable, "-m", "venv", VENV]
    if step("create .venv", argv):
        return True
    if os.geteuid() == 0 and shutil.which("apt-get"):
        package = f"python3.{sys.version_info.minor}-venv"
        step("apt-get update", ["apt-get", "update", "-qq"])
        if step(f"apt-get install {package}", ["apt-get", "install", "-y", "-qq", package]) and step(
            "create .venv", argv
        ):
            return True
    say("Python cannot make virtual environments here. On Debian or Ubuntu: apt-get install python3-venv; try again.")
    return False


def install() -> bool:
    """The package in editable form with everything the tests need, at the versions of constraints.txt."""
    target = f"{ROOT}[dev]"
    constraints = ROOT / "constraints.txt"
    uv = shutil.which("uv") or (str(BIN / "uv") if (BIN / "uv").exists() else None)
    if uv is None and step(
        "get uv (a fast installer)", [BIN / "pip", "install", "-q", "--disable-pip-version-check", "uv"]
    ):
        uv = str(BIN / "uv")
    if uv is not None:
        argv = [uv, "pip", "install", "-q", "--python", BIN / "python", "-c", constraints, "-e", target]
        # uv brings its own certificates; behind a company's proxy only the system's know the issuer.
        if step("install labkit and its packages with uv", argv) or step(
            "install with uv and the system's certificates", [*argv, "--system-certs"]
        ):
            return True
    return step(
        "install labkit and its packages with pip (a few minutes)",
        [BIN / "python", "-m", "pip", "install", "-q", "--disable-pip-version-check", "-c", constraints, "-e", target],
    )


def main() -> int:
    """Entry point; the exit code is 0 when the environment is ready."""
    if sys.version_info < (3, 11):  # noqa: UP036  (this file must say so itself: it runs before anything is installed)
        say(f"labkit needs Python 3.11 or later; this is {sys.version.split()[0]}. Try: make PYTHON=python3.11 …")
        return 1
    if "--check" in sys.argv:
        return 0 if up_to_date() else 1
    if up_to_date():
        return 0
    start = time.monotonic()
    say("Setting up .venv")
    if not (make_venv() and install()):
        return 1
    STAMP.write_text(fingerprint())
    say(f" ✓ .venv is ready ({time.monotonic() - start:.0f} s)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
