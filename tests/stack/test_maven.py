"""What labkit assembles by itself is assembled again when its own part of it changes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from labkit.settings import load_settings
from labkit.stack import maven
from labkit.stack.acquire import find
from labkit.stack.catalogue import MavenSource, load_catalogue


def opensearch_source() -> MavenSource:
    """The catalogue's."""
    program = load_catalogue()["opensearch"].program
    assert program
    (source,) = program.sources
    assert isinstance(source, MavenSource)
    return source


def test_another_launcher_or_option_is_another_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when the version of what it launches is the same."""
    source = opensearch_source()
    recipe = maven.recipe(source)

    assert maven.recipe(source.model_copy(update={"java": ("-Xmx1g",)})) != recipe
    for name in (source.launcher, *source.files):
        (tmp_path / "infra" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "infra" / name).write_text("other")
    monkeypatch.setattr(maven, "files_root", lambda: tmp_path)
    assert maven.recipe(source) != recipe


@pytest.mark.parametrize("up_to_date", [True, False])
def test_a_program_from_an_older_launcher_is_not_used(tmp_path: Path, up_to_date: bool) -> None:
    """The one in the cache counts only if it was made of what labkit has today."""
    folder = tmp_path / "components" / "opensearch" / "2.19.6-maven"
    folder.mkdir(parents=True)
    (folder / "labkit-opensearch").touch()
    recipe = maven.recipe(opensearch_source()) if up_to_date else "of yesterday"
    made = {"binary": "labkit-opensearch", "version": "2.19.6", "source": "maven", "recipe": recipe}
    (folder / "manifest.json").write_text(json.dumps(made | {"args": [], "library_dirs": [], "relocated": False}))

    found = find(load_catalogue()["opensearch"], load_settings({"cache_dir": tmp_path}))

    assert (found is not None) is up_to_date
