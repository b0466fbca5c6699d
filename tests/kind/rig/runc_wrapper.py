"""
runc where CAP_SYS_RESOURCE is missing: containers are created without what needs it.

Privileged containers fail there, because runc raises the capability for them, lowers their OOM score and
sets their limits.  Run as a program, this takes all three out of what the engine asks for, and becomes runc.  It uses
the standard library alone and starts in some 20 ms: every `docker exec` waits for it.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

CAPABILITY = "CAP_SYS_RESOURCE"
_CAP_SYS_RESOURCE = 24  # its bit, from linux/capability.h


def is_needed(status: str) -> bool:
    """
    Whether the bounding set lacks the capability.

    Args:
        status: the text of `/proc/self/status`.

    Raises:
        ValueError: it has no line about the bounding set; that is not knowing, and no answer.

    >>> is_needed("CapBnd: 000001fffeffffff"), is_needed("CapBnd: 000001ffffffffff")
    (True, False)
    """
    for line in status.splitlines():
        if line.startswith("CapBnd:"):
            return not int(line.split()[1], 16) >> _CAP_SYS_RESOURCE & 1
    raise ValueError("no line CapBnd in the status of this process")


def without_resource(process: dict[str, Any]) -> dict[str, Any]:
    """
    The description of a process without the capability, the OOM score and the limits; all else is as it was.

    >>> without_resource({"args": ["sh"], "oomScoreAdj": -500, "capabilities": {"bounding": ["CAP_SYS_RESOURCE"]}})
    {'args': ['sh'], 'capabilities': {'bounding': []}}
    """
    kept = {name: value for name, value in process.items() if name not in ("oomScoreAdj", "rlimits")}
    if "capabilities" in kept:
        sets = (kept["capabilities"] or {}).items()
        kept["capabilities"] = {name: [one for one in held or [] if one != CAPABILITY] for name, held in sets}
    return kept


def file_to_change(arguments: Sequence[str]) -> tuple[Path, bool] | None:
    """
    The file that describes what runc is asked to start, and whether the process is only a part of it.

    Args:
        arguments: those of runc, without its name.

    Returns:
        The bundle's `config.json` for `create` and `run`, the file of `--process` for `exec`; None for any other
        command, and for an `exec` that names its command in words.

    >>> file_to_change(["--root", "/r", "create", "--bundle", "/b", "id"])
    (PosixPath('/b/config.json'), True)
    >>> file_to_change(["exec", "--process", "/p.json", "id"])
    (PosixPath('/p.json'), False)
    >>> file_to_change(["delete", "--force", "id"])
    """
    if any(command in arguments for command in ("create", "run")):
        return Path(_option(arguments, "--bundle", "-b") or ".") / "config.json", True
    if "exec" in arguments:
        process = _option(arguments, "--process", "-p")
        return (Path(process), False) if process else None
    return None


def _option(arguments: Sequence[str], *names: str) -> str | None:
    for place, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name in names:
            return value if equals else arguments[place + 1]
    return None


def change(file: Path, *, is_part: bool) -> None:
    """Rewrite *file*: a description of a process or, when it *is_part*, one that holds it as `process`."""
    whole = json.loads(file.read_text(encoding="utf-8"))
    if is_part:
        whole["process"] = without_resource(whole["process"])
    else:
        whole = without_resource(whole)
    file.write_text(json.dumps(whole), encoding="utf-8")


def main(runc: str, arguments: Sequence[str]) -> None:
    """Change what has to be changed, and become *runc*."""
    found = file_to_change(arguments)
    if found is not None:
        change(found[0], is_part=found[1])
    os.execv(runc, [runc, *arguments])  # noqa: S606


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
