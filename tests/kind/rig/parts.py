"""Everything that is built once, in its order, from the cache where it is there."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from labkit.settings import load_settings
from labkit.stack.download import check_space
from labkit.stack.progress import Progress, silent
from tests.kind.rig import golang, packages
from tests.kind.rig.cache import Cache, digest
from tests.kind.rig.images import Image, Layer, write_archive
from tests.kind.rig.node_image import Ingredients, node_image

__all__ = ["BASE_IMAGE", "Parts", "build_parts"]

# Debian and its Python: give this to a Dockerfile that begins with `ARG BASE` and `FROM $BASE`.
BASE_IMAGE = "localhost/labkit-rig/python:3.11"
# Modules and compiled packages 10 GB, roots and archives 2 GB.
_ROOM_MB = 12_000
_HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Parts:
    """Where the built things lie: folders of programs, and archives of images."""

    engine: Path
    kind: Path
    kubernetes: Path
    coredns: Path
    node_archive: Path
    base_archive: Path


def build_parts(progress: Progress = silent) -> Parts:
    """
    Build what is missing and say where all of it lies; about 20 minutes of two cores the first time.

    Raises:
        NoSpace: the disk cannot hold what is to be built.
        LabkitError: a package or module could not be had, or a tool failed.
    """
    settings = load_settings()
    labkit_cache = settings.cache_dir
    cache = Cache(labkit_cache / "test-tools" / "kind-rig")

    if not any(cache.root.glob("node-image-*")):
        check_space("the parts of the rig and what they are compiled from", cache.root, _ROOM_MB)

    engine_key = digest(" ".join(packages.ENGINE_PACKAGES))
    fetch = partial(packages.fetch_engine, cache=labkit_cache)
    engine = cache.get("engine", engine_key, fetch, what="unpack Docker from its packages", progress=progress)

    programs: dict[str, Path] = {}
    for build in golang.BUILDS:
        compile_it = partial(golang.compile_programs, build, cache=labkit_cache)
        what = f"compile {', '.join(build.programs)} from Go modules"
        programs[build.name] = cache.get(build.name, build.key, compile_it, what=what, progress=progress)

    def root(wanted: packages.Root) -> Path:
        def make(into: Path) -> None:
            packages.make_root(wanted, into / "root.tar", engine=engine)

        what = f"install {len(wanted.packages)} packages for {wanted.name}"
        return cache.get(wanted.name, wanted.key, make, what=what, progress=progress) / "root.tar"

    node_root, python_root = root(packages.NODE_ROOT), root(packages.PYTHON_ROOT)
    module = golang.module_folder("sigs.k8s.io/kind", golang.KIND_VERSION, cache=labkit_cache)
    made_of = Ingredients(
        engine=engine,
        root_tar=node_root,
        kubernetes=programs["kubernetes"],
        coredns=programs["coredns"],
        pause=programs["pause"],
        crictl=programs["crictl"],
        kind_module=module,
    )
    keys = [build.key for build in golang.BUILDS]
    recipe = [_HERE / "node_image.py", _HERE / "images.py", _HERE / "node"]
    node = cache.get(
        "node-image",
        digest(engine_key, packages.NODE_ROOT.key, *keys, *recipe),
        lambda into: node_image(made_of, into / "image.tar"),
        what="put the node image together",
        progress=progress,
    )
    base = cache.get(
        "base-image",
        digest(packages.PYTHON_ROOT.key, BASE_IMAGE, _HERE / "images.py"),
        lambda into: write_archive(
            into / "image.tar", [Image(BASE_IMAGE, [Layer.of(python_root)], command=["python3"])]
        ),
        what="put the base image together",
        progress=progress,
    )
    coredns = programs["coredns"] / "coredns"
    return Parts(engine, programs["kind"], programs["kubernetes"], coredns, node / "image.tar", base / "image.tar")
