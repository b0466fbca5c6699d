"""The table of settings: precedence, types, and every mistake at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from labkit.errors import ConfigInvalid
from labkit.settings import SETTINGS, Settings, files_root, load_settings


def test_precedence_is_argument_environment_file_default(tmp_path: Path) -> None:
    """Each source wins over those after it, and the origin is told."""
    file = tmp_path / "labkit.toml"
    file.write_text("seed = 3\nport_offset = 30\nmirror = 'https://m'\n")
    environ = {"LABKIT_SEED": "2", "LABKIT_PORT_OFFSET": "20"}

    found = load_settings({"seed": 1}, environ=environ, file=file)

    assert (found.seed, found.port_offset, found.mirror, found.pace) == (1, 20, "https://m", "quick")
    assert found.origins["seed"] == "argument"
    assert found.origins["port_offset"] == "environment LABKIT_PORT_OFFSET"
    assert found.origins["mirror"] == str(file)
    assert found.origins["pace"] == "default"


def test_an_argument_of_none_counts_as_not_given() -> None:
    """Command-line options that were not used do not hide the environment."""
    assert load_settings({"seed": None}, environ={"LABKIT_SEED": "5"}).seed == 5


def test_durations_have_units() -> None:
    """`30m` is 1800 seconds; a bare number is refused with the units."""
    assert load_settings(environ={"LABKIT_TTL_S": "30m"}).ttl_s == 1800
    with pytest.raises(ConfigInvalid, match="units: ms s m h d w y"):
        load_settings(environ={"LABKIT_TTL_S": "30"})


def test_every_wrong_value_and_name_is_reported_with_the_nearest_right_one() -> None:
    """Three mistakes make one error with three lines."""
    environ = {"LABKIT_SEEED": "1", "LABKIT_PACE": "quik", "LABKIT_PORT_OFFSET": "ten"}

    with pytest.raises(ConfigInvalid, match=": 3 mistakes") as caught:
        load_settings(environ=environ)

    text = str(caught.value)
    assert "'LABKIT_SEEED' is not a setting; did you mean 'LABKIT_SEED'?" in text
    assert "expected one of quick, full, got 'quik'; did you mean 'quick'?" in text
    assert "expected a whole number, got 'ten'" in text


def test_a_wrong_choice_as_an_argument_is_refused_too() -> None:
    """Arguments are checked as strictly as the environment."""
    with pytest.raises(ConfigInvalid, match="expected one of core"):
        load_settings({"profile": "cores"})


def test_a_file_that_is_not_toml_is_named(tmp_path: Path) -> None:
    """The mistake of the file, not a traceback of the parser."""
    file = tmp_path / "labkit.toml"
    file.write_text("seed 3")

    with pytest.raises(ConfigInvalid, match=r"labkit\.toml: 1 mistake"):
        load_settings(file=file)


def test_table_and_settings_have_the_same_names() -> None:
    """A row without a field, or a field without a row, would be a setting that does nothing."""
    fields = [name for name in Settings.__dataclass_fields__ if name != "origins"]

    assert [setting.name for setting in SETTINGS] == fields


def test_paths_are_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`~` and relative paths are resolved once, so that a change of directory changes nothing."""
    monkeypatch.setenv("HOME", str(tmp_path))

    assert load_settings(environ={"LABKIT_RUN_DIR": "~/lab"}).run_dir == tmp_path / "lab"
    assert load_settings(environ={"LABKIT_CACHE_DIR": "cache"}).cache_dir.is_absolute()


def test_the_files_of_the_installation_are_found() -> None:
    """infra/ and notebooks/ lie side by side."""
    assert (files_root() / "infra" / "components" / "prometheus.yaml").is_file()
