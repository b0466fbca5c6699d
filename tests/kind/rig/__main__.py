"""
The rig by hand: build what is missing, bring the engine up, take it down.

    python -m tests.kind.rig build     build what is missing (20 minutes of two cores the first time)
    python -m tests.kind.rig up        build, start the engine and load the node image
    eval "$(python -m tests.kind.rig env)"; rig kind create cluster --image "$RIG_NODE_IMAGE"
    rig kind load image-archive "$(python -m tests.kind.rig images)"     the images of the lab's servers
    python -m tests.kind.rig status    what there is
    python -m tests.kind.rig down      take all down again; what was built stays in the cache

The engine lives in /var/tmp/labkit-rig; RIG_HOME names another folder.
"""

from __future__ import annotations

import argparse
import sys

from labkit.errors import LabkitError
from labkit.stack.progress import printer
from tests.kind.rig.engine import Engine, default_home
from tests.kind.rig.parts import build_parts
from tests.kind.rig.stack_images import stack_archive

COMMANDS = ("build", "up", "env", "images", "status", "down")


def main(argv: list[str]) -> int:
    """Entry point; exit code 1 with the reason when it did not work."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.kind.rig", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=COMMANDS)
    command, engine = parser.parse_args(argv).command, Engine(default_home())
    # Standard output is for what a shell reads.
    progress = printer(sys.stderr)
    try:
        if command == "build":
            build_parts(progress)
        elif command == "up":
            engine.up(build_parts(progress), progress)
        elif command == "env":
            engine.require_up()
            sys.stdout.write(f"{engine.shell()}\n")
        elif command == "images":
            sys.stdout.write(f"{stack_archive(build_parts(progress), progress)}\n")
        elif command == "status":
            sys.stdout.write("\n".join(engine.status()) + "\n")
        else:
            engine.down(progress)
    except LabkitError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
