"""
The images of the lab's servers, built where none can be pulled.

Each is named `localhost/labkit-ci/COMPONENT:VERSION` and starts like the public image that it stands for: the program
is the entrypoint, but for MariaDB and Redis, which a manifest gives their command.  The version is what the image
really holds; where that is another than the public image's, the overlay that renames the images has to say so.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from labkit._proc import run
from labkit.errors import ToolMissing
from labkit.settings import Settings, load_settings
from labkit.stack import maven
from labkit.stack.acquire import Installed, acquire, remedy
from labkit.stack.catalogue import AptSource, MavenSource, Source, load_catalogue
from labkit.stack.download import check_space
from labkit.stack.progress import Progress, silent
from tests.full import prometheus3
from tests.kind.rig import golang, packages
from tests.kind.rig.cache import Cache, digest
from tests.kind.rig.images import Entry, Image, Layer, write_archive, write_layer
from tests.kind.rig.parts import Parts

__all__ = ["STACK_IMAGES", "stack_archive"]

_HERE = Path(__file__).parent
_ENTRYPOINT = _HERE.parent / "images" / "opensearch-entrypoint"
_OPENSEARCH = "usr/share/opensearch"
_PROMETHEUS = "github.com/prometheus"
# Not 2.16.0, as the public image: no checksum of it was to be had from Go's database.
_KUBE_STATE_METRICS = "2.15.0"
# Layers and their archive; what Go and Maven keep is a few hundred more.
_ROOM_MB = 2_500


def _pinned(component: str) -> Source:
    """The first source of a component that has a version: what users download."""
    program = load_catalogue()[component].program
    assert program is not None
    return next(source for source in program.sources if not isinstance(source, AptSource))


def _version(component: str) -> str:
    source = _pinned(component)
    assert not isinstance(source, AptSource)
    return source.version


def _go(component: str, module: str, program: str, version: str, *, package: str = "") -> golang.GoBuild:
    said = {f"{_PROMETHEUS}/common/version.Version": version}
    return golang.GoBuild(component, {module: version}, {program: f"{module}{package}"}, said)


_BUILDS = {
    "alertmanager": _go("alertmanager", f"{_PROMETHEUS}/alertmanager", "alertmanager", _version("alertmanager"),
                        package="/cmd/alertmanager"),
    "node-exporter": _go("node-exporter", f"{_PROMETHEUS}/node_exporter", "node_exporter", _version("node-exporter")),
    "blackbox-exporter": _go("blackbox-exporter", f"{_PROMETHEUS}/blackbox_exporter", "blackbox_exporter",
                             _version("blackbox-exporter")),
    "kube-state-metrics": _go("kube-state-metrics", "k8s.io/kube-state-metrics/v2", "kube-state-metrics",
                              _KUBE_STATE_METRICS),
}  # fmt: skip
_ACQUIRED = ("toxiproxy", "jaeger")

# The whole name of each image, by component; with a `v` where the public image has one.
STACK_IMAGES = {
    component: f"localhost/labkit-ci/{component}:{version}"
    for component, version in {
        "prometheus": f"v{prometheus3.PINNED}",
        **{name: f"v{version}" for name, build in _BUILDS.items() for version in build.requires.values()},
        **packages.STACK_VERSIONS,
        **{name: _version(name) for name in (*_ACQUIRED, "opensearch")},
    }.items()
}


def stack_archive(parts: Parts, progress: Progress = silent) -> Path:
    """
    All images of `STACK_IMAGES` in one file for `kind load image-archive`, built if it is not in the cache.

    Args:
        parts: what `build_parts` built; its unpacked engine has the tool that installs Debian into a folder.
        progress: told of every step.

    Raises:
        ToolMissing: a program could not be had in the version that its image is named after.
        LabkitError: a package or module could not be had, or a tool failed.
    """
    settings = load_settings()
    cache = Cache(settings.cache_dir / "test-tools" / "kind-rig")
    if not any(cache.root.glob("stack-images-*")):
        check_space("the images of the lab's servers", cache.root, _ROOM_MB)
    programs = _compiled(cache, settings, progress)
    root_tar = _root(parts, cache, progress)

    def put_together(into: Path) -> None:
        opensearch = acquire(load_catalogue()["opensearch"], settings, progress)
        programs["prometheus"] = prometheus3.compiled("prometheus")
        programs.update({name: _acquired(name, settings, progress) for name in _ACQUIRED})
        with tempfile.TemporaryDirectory(prefix=".layers-", dir=into) as work:
            write_archive(into / "images.tar", list(_images(programs, opensearch, root_tar, Path(work))))

    source = _pinned("opensearch")
    assert isinstance(source, MavenSource)
    builds = [build.key for build in _BUILDS.values()]
    made_of = [packages.STACK_ROOT.key, maven.recipe(source), *builds, *STACK_IMAGES.values()]
    key = digest(*made_of, Path(__file__), _HERE / "images.py", _ENTRYPOINT)
    what = "put the images of the stack together"
    return cache.get("stack-images", key, put_together, what=what, progress=progress) / "images.tar"


def _compiled(cache: Cache, settings: Settings, progress: Progress) -> dict[str, Path]:
    """The programs of `_BUILDS` by component."""
    programs: dict[str, Path] = {}
    for name, build in _BUILDS.items():
        compile_it = partial(golang.compile_programs, build, cache=settings.cache_dir)
        folder = cache.get(name, build.key, compile_it, what=f"compile {name} from Go modules", progress=progress)
        programs[name] = folder / next(iter(build.programs))
    return programs


def _root(parts: Parts, cache: Cache, progress: Progress) -> Path:
    """The tar of Debian with its servers and Java."""
    root = packages.STACK_ROOT

    def make(into: Path) -> None:
        packages.make_root(root, into / "root.tar", engine=parts.engine)

    what = f"install {len(root.packages)} packages for {root.name}"
    return cache.get(root.name, root.key, make, what=what, progress=progress) / "root.tar"


def _acquired(name: str, settings: Settings, progress: Progress) -> Path:
    """A program that labkit itself fetches or compiles; in the version that its image is named after."""
    component = load_catalogue()[name]
    installed = acquire(component, settings, progress)
    if installed.version != _version(name):
        tried = [f"{installed.path} is version {installed.version}"]
        raise ToolMissing(name, wanted_version=_version(name), tried=tried, how=remedy(component))
    return installed.path


def _images(programs: dict[str, Path], opensearch: Installed, root_tar: Path, work: Path) -> Iterator[Image]:
    """The images; those of programs without libraries lie on a busybox, the others on Debian."""
    debian = Layer.of(root_tar)
    with packages.unpacked(root_tar) as root:
        shell = write_layer(work / "shell.tar", _shell(root))
    for component, file in programs.items():
        path = f"usr/local/bin/{file.name}"
        layer = write_layer(work / f"{component}.tar", [Entry(path, file=file)])
        yield Image(STACK_IMAGES[component], [shell, layer], entrypoint=[f"/{path}"])
    yield Image(STACK_IMAGES["mariadb"], [debian], command=["mariadbd"])
    yield Image(STACK_IMAGES["redis"], [debian], command=["redis-server"])
    layer = write_layer(work / "opensearch.tar", _opensearch(opensearch))
    yield Image(STACK_IMAGES["opensearch"], [debian, layer], entrypoint=[f"/{_OPENSEARCH}/entrypoint"])


def _shell(root: Path) -> Iterator[Entry]:
    """A shell and its tools, to look around in a pod with."""
    busybox = root / "bin/busybox"
    yield from (Entry(f"bin/{name}", link="busybox") for name in run([busybox, "--list"], timeout_s=60).split())
    # It lists itself: of two entries the later counts.
    yield Entry("bin/busybox", file=busybox)
    yield Entry("tmp", mode=0o1777)


def _opensearch(installed: Installed) -> Iterator[Entry]:
    """The jars and the script that Maven's source made, where the public image has its own."""
    assert installed.prefix is not None
    for file in sorted(installed.prefix.rglob("*")):
        # The archive of classes is one of this machine's Java: another build does not take it.
        if file.is_file() and file.name not in ("classes.jsa", "manifest.json", "pom.xml"):
            mode = 0o755 if file == installed.path else 0o644
            yield Entry(f"{_OPENSEARCH}/{file.relative_to(installed.prefix).as_posix()}", file=file, mode=mode)
    yield Entry(f"{_OPENSEARCH}/entrypoint", file=_ENTRYPOINT)
