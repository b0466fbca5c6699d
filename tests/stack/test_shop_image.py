"""What goes into the shop's image, before any engine is asked."""

from __future__ import annotations

import ast
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import labkit
from labkit.errors import ConfigInvalid
from labkit.settings import files_root
from labkit.stack import shop_image
from labkit.stack.shop_image import default_base

RECIPE = files_root() / "infra" / "images" / "shop"
PACKAGE = Path(labkit.__file__).parent


def pins(text: str) -> dict[str, str]:
    """Versions by name; what stands behind a semicolon says where a pin counts."""
    lines = (line.split(";")[0].strip() for line in text.splitlines() if line.strip() and not line.startswith("#"))
    return dict(line.split("==") for line in lines)


def test_every_package_has_the_version_that_the_tests_ran_with() -> None:
    """requirements.txt is a part of constraints.txt: `make lock` alone must not leave the image behind."""
    constraints = pins((files_root() / "constraints.txt").read_text())
    wanted = pins((RECIPE / "requirements.txt").read_text())

    assert len(wanted) > 40
    assert wanted == {name: constraints[name] for name in wanted}


def test_the_base_is_named_to_the_patch_release() -> None:
    """A moving name would give another image to everybody who builds."""
    assert re.fullmatch(r"docker\.io/library/python:3\.11\.\d+-slim-bookworm", default_base())


def test_a_recipe_without_a_base_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """And not an image on whatever comes first."""
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    monkeypatch.setattr(shop_image, "_recipe", lambda: tmp_path)

    with pytest.raises(ConfigInvalid, match="ARG BASE"):
        default_base()


@pytest.fixture
def installation(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A copy of what goes in, which may be changed."""
    shutil.copytree(PACKAGE, tmp_path / "labkit", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(files_root() / "infra", tmp_path / "infra")
    monkeypatch.setattr(shop_image, "files_root", lambda: tmp_path)
    monkeypatch.setattr(sys.modules["labkit"], "__file__", str(tmp_path / "labkit" / "__init__.py"))
    return tmp_path


@pytest.mark.parametrize(
    "file",
    [
        "labkit/shop/catalog.py",
        "labkit/errors.py",
        "labkit/observe/store/server.py",
        "infra/logs/patterns",
        "infra/images/shop/Dockerfile",
        "infra/images/shop/slim.py",
        "infra/images/shop/requirements.txt",
    ],
)
def test_the_tag_changes_with_each_thing_that_goes_in(installation: Path, file: str) -> None:
    """A change that is missed would run yesterday's code on the cluster."""
    path = installation / file
    if path.is_dir():
        path = next(found for found in sorted(path.rglob("*")) if found.is_file())
    before = shop_image._digest("base:1", "x86_64")
    path.write_text(path.read_text() + "\n# changed\n")

    assert shop_image._digest("base:1", "x86_64") != before


def test_the_tag_knows_base_and_machine_and_nothing_else(installation: Path) -> None:
    """The same content has the same tag, so that an image is built once; what stays out does not count."""
    before = shop_image._digest("base:1", "x86_64")
    (installation / "labkit" / "course" / "journal.py").write_text("changed")
    (installation / "labkit" / "shop" / "__pycache__").mkdir()
    (installation / "labkit" / "shop" / "__pycache__" / "a.cpython-311.pyc").write_bytes(b"changed")

    assert shop_image._digest("base:1", "x86_64") == before
    assert shop_image._digest("base:2", "x86_64") != before
    assert shop_image._digest("base:1", "aarch64") != before


def test_what_goes_in_is_complete_for_its_imports() -> None:
    """No file of ours in the image imports, at its top, a file of ours that is not there."""
    inside = {name for name, _ in shop_image._our_files()}
    entries = ["shop/__main__.py", "shop/traffic.py", *(f"shop/{name}.py" for name in _services())]
    entries += ["observe/exporter/__main__.py", "observe/store/__main__.py"]
    entries += [f"observe/{name}.py" for name in ("webhook", "shipper", "pod_logs")]
    reached = set(_reached([PACKAGE / entry for entry in entries]))

    assert len(reached) > 30
    assert {f"app/labkit/{path.relative_to(PACKAGE)}" for path in reached} <= inside


def test_what_is_laid_out_can_be_read_by_any_user(tmp_path: Path) -> None:
    """The image's user is none of ours, whatever the umask here was when the checkout was made."""
    packages = tmp_path / "packages"
    packages.mkdir(mode=0o700)
    (packages / "secretive.py").write_text("")
    (packages / "secretive.py").chmod(0o600)
    context = tmp_path / "context"
    context.mkdir()

    shop_image._prepare(context, packages)

    assert (context / "app" / "infra" / "components").is_dir()
    assert all(path.stat().st_mode & 0o004 for path in context.rglob("*"))


def _services() -> tuple[str, ...]:
    from labkit.shop.config import SERVICES

    return tuple(SERVICES)


def _reached(rest: list[Path]) -> Iterator[Path]:
    """The files of labkit that *rest* and what they import are; imports inside functions count too."""
    seen: set[Path] = set()
    while rest:
        path = rest.pop()
        if path in seen or not path.exists():
            continue
        seen.add(path)
        yield path
        for node in ast.walk(ast.parse(path.read_text())):
            names = [f"{node.module}.{alias.name}" for alias in node.names] if isinstance(node, ast.ImportFrom) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                if name.startswith("labkit.") and not name.startswith("labkit.lab"):
                    place = PACKAGE.joinpath(*name.split(".")[1:])
                    rest += [place.with_suffix(".py"), place / "__init__.py"]
