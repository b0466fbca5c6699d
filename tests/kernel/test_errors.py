"""The error tree: drawn, complete, carrying data, surviving a border between processes."""

from __future__ import annotations

import inspect
import pickle
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from labkit import errors

NOW = datetime(2026, 3, 1, 2, 0, tzinfo=UTC)
EXAMPLES: list[errors.LabkitError] = [
    errors.ToolMissing("prometheus", wanted_version=">=2", tried=["PATH: no prometheus"], how="Install it."),
    errors.PortInUse("web", port=80, pid=12, process="nginx", how="Stop it."),
    errors.NoSpace("The lab", path=Path("/data"), need_mb=300, free_mb=10),
    errors.DownloadFailed("https://x/y", reason="the connection ended", how="Try again."),
    errors.ChecksumMismatch("https://x/y", expected="aa", actual="bb", source="the list"),
    errors.ConfigInvalid("a.yaml", problems=[errors.ConfigProblem(3, 1, "`titel` is not known")]),
    errors.NotReady("3 targets up", waited_s=60, last_seen={"a": 0}, how="See the log."),
    errors.NotRunning("Joining the lab", seen="no lab runs", how="Run `labkit up`."),
    errors.ComponentDied("web", state="FATAL", log_path=Path("/l"), log_tail="no recipe"),
    errors.CommandFailed(["kind", "create"], returncode=1, took_s=48, stderr_tail="port taken"),
    errors.RequestFailed("GET", "http://x/", status=503, reason="busy"),
    errors.QueryRejected("rate(x[5m]", position=5, server_message="unclosed left parenthesis"),
    errors.NoData("up", start=NOW, end=NOW, nearest="The nearest value is a."),
    errors.NotConfirmed("shop-prod", reason="its name looks like production", how="Add `--yes-this-cluster`."),
    errors.RightsMissing("shop", namespace="lab", missing=["create pods", "get pods/log"], how="Ask for this Role."),
    errors.ClusterGone("https://x:6443", context="shop", reason="connection refused", since=NOW, how="Start it."),
    errors.ClusterGone("https://x:6443", context="shop", reason="no answer in time", since=None, how="Start it."),
    errors.ClusterRefused(
        "Deployment web", status=403, said="exceeded quota", answer={"code": 403}, how="Ask for more."
    ),
    errors.FieldConflict("Deployment web", owners={".spec.replicas": "kubectl"}, said="conflict"),
    errors.NotOurs("Namespace shop", seen="labkit did not make it", how="Choose another name."),
    errors.NamespaceStuck("lab", waited_s=60, blockers=["ConfigMap a has the finalizer x/y"], how="Remove it."),
    errors.NamespaceStuck("lab", waited_s=60, blockers=[], how="Remove it."),
    errors.WillNotStart("web", cause="exit code 1 for the 4th time", log_tail="no recipe", how="See the log."),
    errors.ExerciseFailed("00-1", outcome="not yet", because="You divided by the objective."),
]


def classes() -> dict[str, type]:
    """Every exception class of the module."""
    return {
        name: cls for name, cls in vars(errors).items() if inspect.isclass(cls) and issubclass(cls, errors.LabkitError)
    }


def test_the_tree_in_the_docstring_is_the_tree_in_the_code() -> None:
    """Each class stands in the drawing with its builtin parent, and nothing else does."""
    drawn = dict(re.findall(r"─ (\w+)(?:\s+\(also (\w+)\))?", errors.__doc__ or ""))
    real = {
        name: next((b.__name__ for b in cls.__mro__[1:] if b.__module__ == "builtins"), "")
        for name, cls in classes().items()
        if cls is not errors.LabkitError
    }
    real = {name: "" if parent == "Exception" else parent for name, parent in real.items()}

    assert drawn == real


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda e: type(e).__name__)
def test_an_error_survives_pickling_with_message_and_data(error: errors.LabkitError) -> None:
    """What a worker raises is what its parent sees."""
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301  (our own bytes)

    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda e: type(e).__name__)
def test_a_message_is_readable(error: errors.LabkitError) -> None:
    """No doubled spaces or stops, no representation of an object, no sentence glued to the next."""
    text = re.sub(r"\n +\^", "", str(error))

    assert "  " not in text.replace("\n  ", "")
    assert ".." not in text
    assert not re.search(r"<\w+ object|\bNone\b|[.!?][A-Z]", text)


def test_the_caret_stands_below_its_character_in_a_text_of_several_lines() -> None:
    """Positions count through line ends; only the line with the mistake is shown."""
    assert errors.point_at("sum(\n  rate(x[5m]\n)", 13) == "  rate(x[5m]\n       ^"


def test_all_is_what_the_module_has() -> None:
    """`__all__` is sorted and complete."""
    public = {
        name
        for name, value in vars(errors).items()
        if inspect.isclass(value) and value.__module__ == errors.__name__ and not name.startswith("_")
    }

    assert errors.__all__ == sorted(errors.__all__)
    assert set(errors.__all__) == public
