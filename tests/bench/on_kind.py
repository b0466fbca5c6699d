"""How long a cluster and a lab on it take, and how large the shop's image is, on the rig of the tests."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Any

from labkit._proc import run
from labkit.stack.progress import silent
from labkit.stack.shop_image import build_shop_image
from tests.bench.lab import row
from tests.kind.kind_lab import KindLab, with_images
from tests.kind.rig.engine import Engine, default_home
from tests.kind.rig.parts import BASE_IMAGE, build_parts

__all__ = ["rows"]

_TIMES = 3
_CLUSTER = "make the kind cluster"


def rows(folder: Path) -> list[dict[str, Any]]:
    """A cluster of one node, everything else of `up` (images on its node not counted), and the image's size."""
    parts = build_parts(silent)
    engine = Engine(default_home())
    was_up = engine.is_up()
    engine.up(parts)
    try:
        images = with_images(engine, parts)
        with engine.entered():
            labs = [_one(engine, folder / str(number), images) for number in range(_TIMES)]
            size = run(["docker", "image", "inspect", build_shop_image(base=BASE_IMAGE), "--format", "{{.Size}}"],
                       timeout_s=60)  # fmt: skip
    finally:
        if not was_up:
            engine.down()
    cluster, rest = (median(one[n] for one in labs) for n in (0, 1))
    return [
        row("kind cluster, node image cached", cluster, "s", 30),
        row("up on an existing cluster", rest, "s", 120),
        row("image of the shop", int(size) / 1e6, "MB", 200),
    ]


def _one(engine: Engine, run_dir: Path, images: Path) -> tuple[float, float]:
    """Seconds for the cluster, and for the rest."""
    with KindLab(engine, run_dir, images) as lab:
        cluster = next(took for what, took in lab.took_s.items() if what.startswith(_CLUSTER))
        return cluster, lab.took_s["up"] - cluster
