"""The project itself: one environment told twice, pages that say what is true, nothing that should not be there."""

from __future__ import annotations

import importlib
import os
import pkgutil
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

import labkit
from labkit._proc import run
from labkit.settings import SETTINGS, files_root
from labkit.stack.catalogue import load_catalogue

ROOT = files_root()
PYPROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
DECLARED = re.compile(r'^  "(?P<spec>[^"]+)",\s*(?:# (?P<why>.+))?$', re.MULTILINE)
AGREED = [
    "jupyterlab",
    "papermill",
    "pandas",
    "matplotlib",
    "prometheus-api-client",
    "kubernetes",
    "locust",
    "nbval",
    "requests",
]


def tracked(*patterns: str) -> list[Path]:
    """Files under version control."""
    done = subprocess.run(
        ["git", "ls-files", *patterns], cwd=ROOT, capture_output=True, text=True, check=True, timeout=20
    )
    return [ROOT / line for line in done.stdout.splitlines() if (ROOT / line).is_file()]


def declared() -> dict[str, str]:
    """Every dependency of pyproject.toml with its comment."""
    project = tomllib.loads(PYPROJECT)["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    comments = {m["spec"]: m["why"] or "" for m in DECLARED.finditer(PYPROJECT)}
    return {spec: comments.get(spec, "") for spec in wanted}


def test_conda_and_pip_describe_the_same_environment() -> None:
    """environment.yml lists the dependencies of pyproject.toml, with the same ranges and comments."""
    text = (ROOT / "environment.yml").read_text(encoding="utf-8")
    listed = re.findall(r"^      - ([^\s-].*?)  # (.+)$", text, re.MULTILINE)

    assert dict(listed) == declared()
    assert yaml.safe_load(text)["dependencies"][0] == "python" + tomllib.loads(PYPROJECT)["project"]["requires-python"]


def test_every_dependency_says_which_part_needs_it() -> None:
    """A comment of the form `room: why` beside each."""
    assert [spec for spec, why in declared().items() if not re.match(r"[\w., ]+: \w|tests", why)] == []


def test_every_dependency_is_pinned_in_the_constraints() -> None:
    """constraints.txt is what `make lock` made from pyproject.toml; nothing in it names an index."""
    pinned = dict(
        line.split(";")[0].strip().lower().split("==") for line in (ROOT / "constraints.txt").read_text().splitlines()
    )
    names = [re.split(r"[<>=!~\[]", spec)[0].lower() for spec in declared()]

    assert [name for name in names if name not in pinned] == []
    assert "://" not in (ROOT / "constraints.txt").read_text()


def test_every_agreed_package_is_used_by_the_package_or_its_tests() -> None:
    """A package that nobody imports or runs would be a burden without use."""
    used = {
        "jupyterlab": '-m", "jupyterlab',
        "papermill": "import papermill|from papermill",
        "pandas": "import pandas",
        "matplotlib": "import matplotlib|from matplotlib",
        "prometheus-api-client": "from prometheus_api_client",
        "kubernetes": "import kubernetes",
        "locust": "from locust",
        "nbval": "nbval",
        "requests": "import requests",
    }
    code = "\n".join(path.read_text(encoding="utf-8") for path in tracked("labkit/*.py", "tests/*.py", "Makefile"))

    assert sorted(used) == sorted(AGREED)
    assert [name for name, sign in used.items() if not re.search(sign, code)] == []


def test_importing_labkit_loads_nothing_heavy() -> None:
    """Every service of the shop imports the package: pandas, pydantic or requests in it would cost each a second."""
    heavy = "{'pandas', 'numpy', 'pydantic', 'requests', 'psutil', 'matplotlib'}"
    code = f"import sys, labkit, labkit.errors; print(sorted(set(sys.modules) & {heavy}))"

    assert run([sys.executable, "-c", code], timeout_s=60) == "[]\n"


def test_the_command_line_starts_without_the_clients() -> None:
    """`labkit --help` must not wait for pandas, papermill or the notebook format."""
    heavy = "{'pandas', 'papermill', 'nbformat', 'matplotlib', 'kubernetes'}"
    code = f"import sys, labkit.cli; print(sorted(set(sys.modules) & {heavy}))"

    assert run([sys.executable, "-c", code], timeout_s=60) == "[]\n"


def modules() -> list[str]:
    """Every module of the package that may be imported into this process."""
    # traffic.py is a Locust file: importing Locust patches the standard library, so it runs in a process of its own.
    kept_out = {"labkit.shop.traffic", "labkit.shop.__main__"}
    return [m.name for m in pkgutil.walk_packages(labkit.__path__, "labkit.") if m.name not in kept_out]


@pytest.mark.parametrize("name", modules())
def test_all_names_what_is_there(name: str) -> None:
    """Each name in `__all__` exists and is public (the linter keeps the list in order)."""
    names = getattr(importlib.import_module(name), "__all__", [])

    assert [n for n in names if n.startswith("_")] == []
    assert [n for n in names if not hasattr(importlib.import_module(name), n)] == []


def test_the_changelog_tells_the_present_version() -> None:
    """The first heading that is a version is the package's, which is the installed one."""
    found = re.search(r"^## \[?(\d+\.\d+\.\d+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)

    assert found is not None
    assert found.group(1) == labkit.__version__ == version("labkit")


@pytest.mark.parametrize("path", tracked("*.md"), ids=lambda p: str(p.relative_to(ROOT)))
def test_links_between_documents_lead_somewhere(path: Path) -> None:
    """Every relative link of every Markdown file names a file that exists."""
    links = re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", path.read_text(encoding="utf-8"))

    assert [link for link in links if not (path.parent / link).exists()] == []


def test_the_page_about_the_stack_and_its_drawing_name_every_component() -> None:
    """docs/stack.md and docs/stack.svg show what the catalogue has."""
    page, drawing = ((ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("stack.md", "stack.svg"))
    for name, component in load_catalogue().items():
        assert f"`{name}`" in page, name
        assert component.title in drawing, name


def test_the_readme_lists_every_setting() -> None:
    """The table of settings in the documentation is the table in the code."""
    page = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    for setting in SETTINGS:
        assert f"| `{setting.name}` | `{setting.env}` | {setting.doc} |" in page


def test_every_target_of_the_makefile_has_its_line_of_help() -> None:
    """`make help` shows all."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", text, re.MULTILINE))

    assert targets == set(re.findall(r"^([a-z-]+):.*## \w", text, re.MULTILINE))


def test_decisions_are_numbered_without_gaps() -> None:
    """docs/decisions/NNNN-name.md, from 0001."""
    numbers = [int(path.name[:4]) for path in sorted((ROOT / "docs" / "decisions").glob("*.md"))]

    assert numbers == list(range(1, len(numbers) + 1))


def test_no_tracked_file_is_large() -> None:
    """Nothing above two megabytes belongs into the repository."""
    assert [path.name for path in tracked() if path.stat().st_size > 2_000_000] == []


def test_no_code_sleeps_instead_of_waiting() -> None:
    """`time.sleep` outside the one function that waits for conditions would be a guess."""
    allowed = {ROOT / "labkit" / "_wait.py"}
    sleepers = [p for p in tracked("labkit/*.py", "notebooks/*") if p not in allowed and "time.sleep(" in p.read_text()]

    assert sleepers == []


def test_no_broad_except_is_in_the_package() -> None:
    """An error that was not meant passes through; only a start that must undo itself catches all, and re-raises."""
    pattern = re.compile(r"except( Exception)?:|except BaseException:\s*pass")

    assert [p.name for p in tracked("labkit/*.py") if pattern.search(p.read_text(encoding="utf-8"))] == []


def test_the_data_is_what_the_code_makes() -> None:
    """Every file of data/ equals what tools/make_data.py makes now, and the list of checksums is right."""
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        made = importlib.import_module("make_data").files()
    finally:
        sys.path.pop(0)

    assert {name: (ROOT / "data" / name).read_text(encoding="utf-8") for name in made} == made
    assert {path.name for path in (ROOT / "data").iterdir()} == {*made, "README.md"}
    page = (ROOT / "data" / "README.md").read_text(encoding="utf-8")
    for name, text in made.items():
        if name.endswith(".csv"):
            assert all(f"`{column}`" in page for column in text.splitlines()[0].split(","))


@pytest.mark.live
def test_a_wheel_works_without_a_checkout_and_has_no_solutions(tmp_path: Path) -> None:
    """Configuration, data and the learner's notebooks are inside and found; sources and solutions are not."""
    run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", tmp_path, ROOT],
        timeout_s=120,
    )
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "site")

    assert "labkit/py.typed" in names
    assert "labkit/_files/notebooks/00_start_here.ipynb" in names
    assert [name for name in names if "/solved/" in name or "/src/" in name] == []
    code = (
        "from labkit.stack.catalogue import load_catalogue; from labkit.settings import files_root; "
        "print(files_root(), len(load_catalogue()))"
    )
    said = run(
        [sys.executable, "-c", code],
        timeout_s=60,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
    )
    assert said == f"{tmp_path / 'site' / 'labkit' / '_files'} {len(load_catalogue())}\n"
