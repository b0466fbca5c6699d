"""
The image of all that is ours on a cluster: the shop, its load, and the programs that observe it.

It is built without a network.  The folder that Docker is given is prepared here: labkit's own files, and wheels for
Linux that the Python index has, whatever this machine's system and Python are.  The tag is a digest of what goes in, so
that an image is built once and a change is never missed.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock

from labkit._proc import run, tail
from labkit.errors import CommandFailed, ConfigInvalid, NotReady, SetupError, ToolMissing
from labkit.settings import files_root, load_settings
from labkit.stack.download import check_space
from labkit.stack.engine import pull_problem
from labkit.stack.progress import Progress, silent, step

__all__ = ["REPOSITORY", "build_shop_image", "default_base", "push_image"]

REPOSITORY = "labkit-shop"
_LABEL = "labkit.image=shop"
_KEPT_FOR = "24h"
_KEPT_S = 24 * 3600
_PYTHON = "3.11"
# Docker's word for the machine, and the wheels' word.
_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
# Debian 12 has glibc 2.36; a wheel for an older one runs there too.
_GLIBC_MINORS = (17, 24, 26, 27, 28, 31, 34)
_PACKAGES_OF_OURS = ("", "shop", "observe")
_FILES_OF_OURS = ("components", "logs", "opensearch", "shop")
# What wheels carry beside what runs.
_DEAD_WEIGHT = ("tests", "test", "testing", "testdata", "bin", "__pycache__", "webui")
_DEAD_FILES = ("*.pyx", "*.pxd", "*.pxi", "*.pyi", "*.c", "*.h", "*.cpp", "*.hpp", "*.mako", "RECORD")
_ROOM_MB = 600
_INSTALL_TIMEOUT_S = 900
_BUILD_TIMEOUT_S = 900
_ASK_TIMEOUT_S = 30
_PUSH_TIMEOUT_S = 900


def default_base() -> str:
    """
    The image that ours begins with unless another is asked for, as the Dockerfile says.

    Raises:
        ConfigInvalid: the Dockerfile names none.
    """
    dockerfile = _recipe() / "Dockerfile"
    found = re.search(r"^ARG BASE=(\S+)$", dockerfile.read_text(encoding="utf-8"), re.MULTILINE)
    if found is None:
        raise ConfigInvalid(str(dockerfile), problems=["no line `ARG BASE=IMAGE`"])
    return found.group(1)


def build_shop_image(
    docker: str | Path = "docker", progress: Progress = silent, *, base: str = "", cache: Path | None = None
) -> str:
    """
    The image of the shop on the engine that *docker* talks to, built if the engine does not have it.

    Args:
        docker: the command-line client; its environment says which engine.
        progress: told what is being done.
        base: an image with Python 3.11 on Debian 12 or newer; `default_base()` if empty.  It is pulled if absent.
        cache: where wheels are kept unpacked between builds; labkit's cache if None.

    Returns:
        The name with its tag, such as `labkit-shop:4f1c0a9b2d7e`.

    Raises:
        SetupError: the base cannot be pulled, or there are no wheels for the engine's machine; says why.
        ToolMissing: there is no docker, or neither pip nor uv.
        CommandFailed: the packages could not be had, or the build failed.
        NoSpace: the disk cannot hold it.
    """
    base = base or default_base()
    cache = cache or load_settings().cache_dir
    machine = _machine(docker)
    tag = f"{REPOSITORY}:{_digest(base, machine)}"
    if _has(docker, tag):
        return tag
    check_space("Building the image of the shop", cache, _ROOM_MB)
    packages = _packages(machine, cache, progress)
    with step(progress, f"build the image {tag}"), tempfile.TemporaryDirectory(prefix="labkit-image-") as folder:
        context = Path(folder)
        _prepare(context, packages)
        _forget_old(docker)
        _build(docker, context, tag, base)
        if not _has(docker, tag):
            how = "Check with `docker buildx ls` that the builder keeps its images in the engine itself."
            raise NotReady(f"{tag} is among the images of the engine", waited_s=0, last_seen="it is not", how=how)
    return tag


def _recipe() -> Path:
    return files_root() / "infra" / "images" / "shop"


def _machine(docker: str | Path) -> str:
    """The engine's machine as wheels call it; not this machine's, for Docker may run elsewhere."""
    said = run([docker, "version", "--format", "{{.Server.Arch}}"], timeout_s=_ASK_TIMEOUT_S).strip()
    if said not in _MACHINES:
        raise SetupError(
            f"The image of the shop is made for {' and '.join(_MACHINES)}; the engine of this docker runs on "
            f"{said or 'an unknown machine'}. Use an engine on one of those."
        )
    return _MACHINES[said]


def _has(docker: str | Path, tag: str) -> bool:
    return bool(run([docker, "image", "ls", "--quiet", tag], timeout_s=_ASK_TIMEOUT_S).strip())


def _digest(base: str, machine: str) -> str:
    """Of all that decides what the image holds: the recipe, the base's name, the machine, and each of our files."""
    sum_of_all = hashlib.sha256(f"{base}\0{machine}\0".encode())
    for name, file in sorted([*_recipe_files(), *_our_files()]):
        content = hashlib.sha256(file.read_bytes()).hexdigest()
        sum_of_all.update(f"{name}\0{content}\0".encode())
    return sum_of_all.hexdigest()[:12]


def _recipe_files() -> Iterator[tuple[str, Path]]:
    for name in ("Dockerfile", "slim.py", "requirements.txt"):
        yield name, _recipe() / name


def _our_files() -> Iterator[tuple[str, Path]]:
    """Paths in the image below /app, and the files of this installation that go there."""
    package = Path(sys.modules["labkit"].__file__ or "").parent
    for room in _PACKAGES_OF_OURS:
        pattern = "*.py" if not room else f"{room}/**/*.py"
        yield from ((f"app/labkit/{path.relative_to(package)}", path) for path in package.glob(pattern))
    infra = files_root() / "infra"
    for folder in _FILES_OF_OURS:
        found = (path for path in (infra / folder).rglob("*") if path.is_file())
        yield from ((f"app/infra/{path.relative_to(infra)}", path) for path in found)


def _packages(machine: str, cache: Path, progress: Progress) -> Path:
    """The folder of unpacked wheels for *machine*: from the cache, or from the Python index."""
    requirements = _recipe() / "requirements.txt"
    key = hashlib.sha256(requirements.read_bytes() + repr((_DEAD_WEIGHT, _DEAD_FILES)).encode()).hexdigest()[:12]
    home = cache / "images" / REPOSITORY
    home.mkdir(parents=True, exist_ok=True)
    place = home / f"{machine}-{key}"
    with FileLock(str(home / ".lock")):
        if place.is_dir():
            return place
        with step(progress, "get the shop's Python packages for Linux"):
            stage = home / f".stage-{uuid.uuid4().hex[:8]}"
            try:
                run(
                    [*_installer(machine, stage), "--no-deps", "-r", requirements],
                    timeout_s=_INSTALL_TIMEOUT_S,
                    how="Check the network and the Python index that pip is set to, then try again.",
                )
                _slim(stage)
                stage.rename(place)
            finally:
                shutil.rmtree(stage, ignore_errors=True)
        for old in home.glob(f"{machine}-*"):
            # A younger one may be what a build of another checkout is copying.
            if time.time() - old.stat().st_mtime > _KEPT_S:
                shutil.rmtree(old, ignore_errors=True)
    return place


def _installer(machine: str, target: Path) -> list[str | Path]:
    """The command that unpacks wheels for Linux and Python 3.11 into *target*: pip, or uv where pip is missing."""
    only_wheels = ["--only-binary", ":all:", "--target", str(target), "--python-version", _PYTHON]
    if importlib.util.find_spec("pip") is not None:
        platforms = [f"--platform=manylinux_2_{minor}_{machine}" for minor in reversed(_GLIBC_MINORS)]
        platforms.append(f"--platform=manylinux2014_{machine}")
        quiet = ["--quiet", "--no-compile", "--disable-pip-version-check"]
        return [sys.executable, "-m", "pip", "install", *quiet, *only_wheels, "--implementation", "cp", *platforms]
    uv = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
    if uv is not None:
        return [uv, "pip", "install", "--quiet", *only_wheels, "--python-platform", f"{machine}-manylinux_2_28"]
    how = f"Run `{sys.executable} -m ensurepip`, or install uv."
    raise ToolMissing("pip", wanted_version="(any)", tried=[f"{sys.executable} has no pip", "PATH: no uv"], how=how)


def _slim(packages: Path) -> None:
    """Take away what does not run."""
    for folder in sorted(path for path in packages.rglob("*") if path.is_dir() and path.name in _DEAD_WEIGHT):
        shutil.rmtree(folder, ignore_errors=True)
    for pattern in _DEAD_FILES:
        for file in packages.rglob(pattern):
            file.unlink()


def _prepare(context: Path, packages: Path) -> None:
    """Lay out in the empty folder *context* what Docker is given; readable by the user of the image, whatever ours."""
    shutil.copytree(packages, context / "packages")
    for name, file in [*_recipe_files(), *_our_files()]:
        target = context / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    for path in context.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


def _forget_old(docker: str | Path) -> None:
    """Take images of earlier days away, and their first stages: each change of the code leaves one behind."""
    # Those of today may be what another lab is about to load.
    which = ["--all", "--filter", f"label={_LABEL}", "--filter", f"until={_KEPT_FOR}"]
    run([docker, "image", "prune", "--force", *which], timeout_s=_BUILD_TIMEOUT_S)


def _build(docker: str | Path, context: Path, tag: str, base: str) -> None:
    argv = [str(docker), "build", "--network", "none", "--force-rm", "--build-arg", f"BASE={base}", "--tag", tag]
    argv.append(str(context))
    # An attestation would make it an index of two images, which kind cannot load.
    env = {**os.environ, "BUILDX_NO_DEFAULT_ATTESTATIONS": "1"}
    start = time.monotonic()
    try:
        # Not `labkit._proc.run`: the older of Docker's builders tells the reason on standard output.
        done = subprocess.run(
            argv, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, errors="replace", timeout=_BUILD_TIMEOUT_S, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise CommandFailed(argv, returncode=None, took_s=_BUILD_TIMEOUT_S, stderr_tail="") from error
    if done.returncode == 0:
        return
    problem = pull_problem(done.stdout)
    if problem:
        raise SetupError(
            f"The image of the shop begins with {base}, which cannot be had: {problem}. "
            "Set LABKIT_BASE_IMAGE to an image with Python 3.11 on Debian 12 that the engine has or can pull."
        )
    raise CommandFailed(
        argv, returncode=done.returncode, took_s=time.monotonic() - start, stderr_tail=tail(done.stdout)
    )


def push_image(image: str, name: str, docker: str | Path = "docker") -> str:
    """
    Push *image* to a registry, for clusters that cannot see this machine's images.

    Args:
        image: as `build_shop_image` returned it.
        name: registry and repository, as in `registry.example.com/team/labkit-shop`; its tag stays that of *image*
            unless *name* has one.
        docker: the command-line client, logged in to the registry.

    Returns:
        The name under which clusters pull it.

    Raises:
        CommandFailed: the registry did not take it.
    """
    target = name if ":" in name.rsplit("/", 1)[-1] else f"{name}:{image.rsplit(':', 1)[-1]}"
    run([docker, "tag", image, target], timeout_s=_ASK_TIMEOUT_S)
    how = "Log in with `docker login REGISTRY`, and see that you may push there."
    run([docker, "push", "--quiet", target], timeout_s=_PUSH_TIMEOUT_S, how=how)
    return target
