"""The shop's image, built on a real engine without a network, and each program in it run with the least rights."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from labkit._proc import run
from labkit.errors import CommandFailed, SetupError
from labkit.stack import shop_image
from labkit.stack.progress import Event
from labkit.stack.shop_image import build_shop_image
from tests.kind.rig.engine import Engine
from tests.kind.rig.parts import BASE_IMAGE, Parts

pytestmark = [pytest.mark.kind, pytest.mark.timeout(900)]

MOST_MB = 200
LOCUST = ["python3", "-m", "locust", "-f", "/app/labkit/shop/traffic.py", "--headless", "--only-summary"]
# Each program, how it ends when it is told nothing, and a word of what it says then.
PROGRAMS = [
    (["python3", "-m", "labkit.shop"], 64, "usage: python -m labkit.shop SERVICE"),
    *[(["python3", "-m", "labkit.shop", name], 78, "SHOP_PORT") for name in ("gateway", "catalog", "cart", "worker")],
    (["python3", "-m", "labkit.observe.exporter"], 1, "EXPORTER_PORT is missing"),
    (["python3", "-m", "labkit.observe.webhook"], 1, "WEBHOOK_PORT is missing"),
    (["python3", "-m", "labkit.observe.store", "--help"], 0, "--data"),
    (["python3", "-m", "labkit.observe.shipper", "--help"], 0, "--offsets"),
    (["python3", "-m", "labkit.observe.pod_logs", "--help"], 0, "--into"),
    ([*LOCUST, "--help"], 0, "Usage: locust"),
]
# All that a program imports only once it works: servers, drivers, the pipeline of log lines, the shape of the load.
WORKING = """
import importlib, sys
from labkit.shop.config import SERVICES
for name in (*SERVICES, "server", "state"):
    importlib.import_module(f"labkit.shop.{name}")
for name in ("exporter.__main__", "webhook", "store.server", "shipper", "pod_logs"):
    importlib.import_module(f"labkit.observe.{name}")
from labkit.observe.ingest import line_pipeline
assert line_pipeline()
from labkit.observe.log_lines import *
"""

COMPILED = """
import os, sys, labkit.shop.catalog, labkit.shop.server
files = [m.__cached__ for m in list(sys.modules.values()) if getattr(m, "__cached__", None)]
print("some" if len(files) > 200 else files)
print([file for file in files if not os.path.exists(file)])
"""


@pytest.fixture(scope="module")
def base(rig: Engine, parts: Parts) -> Iterator[str]:
    """
    The base under a name of this module, and the engine's environment: images of other tests have other tags.

    Its network is not entered: Docker is reached by a socket, and wheels come from outside.
    """
    name = f"localhost/labkit-test/{os.getpid()}:3.11"
    with pytest.MonkeyPatch.context() as patch:
        for variable, value in rig.environment.items():
            patch.setenv(variable, value)
        run(["docker", "load", "--input", parts.base_archive], timeout_s=300)
        run(["docker", "tag", BASE_IMAGE, name], timeout_s=30)
        try:
            yield name
        finally:
            run(["docker", "image", "rm", name], timeout_s=60)


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache without wheels, so that they are fetched anew, once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def image(base: str, wheels: Path) -> Iterator[str]:
    """The image, built here."""
    tag = build_shop_image(base=base, cache=wheels)
    yield tag
    run(["docker", "image", "rm", "--force", tag], timeout_s=60)


def start(image: str, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command as the cluster does: no network, nothing writable but /tmp, no rights."""
    rights = ["--network", "none", "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL"]
    argv = ["docker", "run", "--rm", *rights, "--security-opt", "no-new-privileges", image, *command]
    return subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)


def test_it_is_small(image: str) -> None:
    """All layers together, base included, unpacked."""
    size = int(run(["docker", "image", "inspect", "--format", "{{.Size}}", image], timeout_s=30))

    assert 100e6 < size < MOST_MB * 1e6


def test_it_names_its_user_by_number(image: str) -> None:
    """A cluster can prove `runAsNonRoot` for a number, and not for a name."""
    config = json.loads(run(["docker", "image", "inspect", image], timeout_s=30))[0]["Config"]

    assert config["User"] == "10001:10001"
    assert f"labkit.image={config['Labels']['labkit.image']}" == shop_image._LABEL
    assert config["Labels"]["org.opencontainers.image.title"] == "labkit-shop"


@pytest.mark.parametrize(("command", "code", "word"), PROGRAMS)
def test_a_program_starts_and_says_what_it_lacks(image: str, command: list[str], code: int, word: str) -> None:
    """With a read-only root, as user 10001: it comes as far as its configuration."""
    done = start(image, *command)

    assert word in done.stdout + done.stderr
    assert done.returncode == code


def test_all_that_programs_import_later_is_there(image: str) -> None:
    """Nothing that is imported when a service works is missing, and nothing warns."""
    working = start(image, "python3", "-c", WORKING)
    # Apart: Locust changes how Python waits, for the whole process.
    load = start(image, "python3", "-c", "import labkit.shop.traffic")

    assert (working.returncode, working.stderr) == (0, "")
    assert (load.returncode, load.stderr) == (0, "")


def test_nothing_is_compiled_when_it_starts(image: str) -> None:
    """Every module that a service imports comes compiled: the root is read-only, so each start would pay again."""
    done = start(image, "python3", "-c", COMPILED)

    assert done.stdout.splitlines() == ["some", "[]"]


def test_no_file_gives_its_caller_more_rights(image: str) -> None:
    """And there is neither a package manager nor Perl to fetch such a thing with."""
    found = start(image, "find", "/usr", "/opt", "/app", "-type", "f", "-perm", "/6000", "-o", "-name", "os-release")
    tools = start(image, "sh", "-c", "command -v apt-get dpkg perl pip su mount")

    assert (found.returncode, found.stdout) == (0, "/usr/lib/os-release\n")
    assert tools.stdout == ""


def test_a_shell_and_its_tools_work(image: str) -> None:
    """What somebody needs who looks around with `kubectl exec` and `kubectl cp`."""
    done = start(
        image, "sh", "-ec", "ls -l /app | head -2; grep -c . /etc/os-release; tar -cf - /app/infra | wc -c; id -u"
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "10001"


def test_a_second_build_does_nothing(base: str, image: str) -> None:
    """The tag is a digest of what goes in: the engine has it, so nothing is prepared."""
    events: list[Event] = []

    assert build_shop_image(progress=events.append, base=base, cache=Path("/nonexistent")) == image
    assert events == []


def test_images_of_earlier_days_are_forgotten_and_no_others(
    base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A build takes away what carries labkit's label and is old; what carries another is not its own."""
    names = {"localhost/labkit-test/a:1": "labkit.image=a", "localhost/labkit-test/b:1": "labkit.image=b"}
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
    for name, label in names.items():
        run(["docker", "build", "--network", "none", "--label", label, "--tag", name, tmp_path], timeout_s=60)
    shop_image._forget_old("docker")
    assert _images(names) == set(names), "those of today stay"

    try:
        # Docker counts whole seconds; this is a moment ahead.
        monkeypatch.setattr(shop_image, "_KEPT_FOR", "-1m")
        # Not by the label of all: another lab's image may be waiting to be loaded.
        monkeypatch.setattr(shop_image, "_LABEL", "labkit.image=b")
        shop_image._forget_old("docker")

        assert _images(names) == {"localhost/labkit-test/a:1"}
    finally:
        run(["docker", "image", "rm", "--force", *_images(names)], timeout_s=60)


def _images(names: Iterable[str]) -> set[str]:
    """Those of *names* that the engine has."""
    return {name for name in names if run(["docker", "image", "ls", "--quiet", name], timeout_s=30).strip()}


def test_a_base_that_cannot_be_pulled_is_named(base: str, wheels: Path) -> None:
    """No network there: the cause, and the setting that helps; no image appears."""
    before = run(["docker", "image", "ls", "--quiet", "labkit-shop"], timeout_s=30)
    with pytest.raises(
        SetupError, match=r"registry\.invalid/python:1, which cannot be had.*resolved.*LABKIT_BASE_IMAGE"
    ):
        build_shop_image(base="registry.invalid/python:1", cache=wheels)

    assert run(["docker", "image", "ls", "--quiet", "labkit-shop"], timeout_s=30) == before


def test_a_base_without_python_says_what_the_build_said(base: str, wheels: Path, tmp_path: Path) -> None:
    """Another failure of the build is handed on as it is, and leaves no container."""
    before = _containers()
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
    run(["docker", "build", "--network", "none", "--tag", "localhost/labkit-empty:1", tmp_path], timeout_s=60)
    try:
        with pytest.raises(CommandFailed, match="python3"):
            build_shop_image(base="localhost/labkit-empty:1", cache=wheels)
    finally:
        run(["docker", "image", "rm", "--force", "localhost/labkit-empty:1"], timeout_s=60)
    assert _containers() <= before


def _containers() -> set[str]:
    """Those that the steps of a build leave, which have the names of no cluster."""
    rows = run(["docker", "ps", "--all", "--format", "{{.Names}} {{.Command}}"], timeout_s=30).splitlines()
    return {row for row in rows if "slim.py" in row}


def test_a_base_with_another_python_is_refused_while_building(base: str, wheels: Path, tmp_path: Path) -> None:
    """Not by pods that crash: the packages hold machine code for one Python."""
    other = "import sys; sys.version_info = (3, 12, 1)"
    (tmp_path / "Dockerfile").write_text(f"FROM {base}\nRUN echo '{other}' > /etc/python3.11/sitecustomize.py\n")
    run(["docker", "build", "--network", "none", "--tag", "localhost/labkit-test/other:1", tmp_path], timeout_s=60)
    try:
        with pytest.raises(CommandFailed, match=r"made for Python 3\.11 on glibc, and this base has Python 3\.12"):
            build_shop_image(base="localhost/labkit-test/other:1", cache=wheels)
    finally:
        run(["docker", "image", "rm", "--force", "localhost/labkit-test/other:1"], timeout_s=60)
