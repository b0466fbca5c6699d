"""Fetch the programs that the tests need, with progress, so that no test waits for a download."""

from __future__ import annotations

import sys

from labkit.settings import load_settings
from labkit.stack.acquire import acquire_all
from labkit.stack.catalogue import profile_components
from labkit.stack.progress import printer


def main() -> int:
    """Entry point; exit code 1 when a program could not be had."""
    settings = load_settings()
    _, missing = acquire_all(profile_components(settings.profile).values(), settings, printer())
    for error in missing.values():
        print(f"✗ {error}", file=sys.stderr)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
