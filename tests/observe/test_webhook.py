"""The receiver of notifications without Alertmanager: what it keeps, and what it refuses."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from labkit._http import request
from labkit.errors import ConfigInvalid, RequestFailed
from labkit.observe.webhook import Notifications, Received, main, serve

ALERT = {
    "status": "firing",
    "labels": {"alertname": "A", "service": "s", "severity": "critical"},
    "annotations": {"summary": "one"},
    "startsAt": "2026-03-01T00:00:00Z",
    "endsAt": "0001-01-01T00:00:00Z",
    "fingerprint": "f",
}


@pytest.fixture
def received(tmp_path: Path) -> Iterator[Received]:
    """A receiver on a free port."""
    with serve(Notifications(tmp_path / "n.jsonl"), "secret", 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Received(f"http://127.0.0.1:{server.server_address[1]}", "secret")
        server.shutdown()


def post(received: Received, path: str, **options: object) -> None:
    """Send something with the token."""
    request("POST", f"{received.url}{path}", headers={"Authorization": "Bearer secret"}, **options)


def test_a_notification_becomes_a_row_per_alert(received: Received) -> None:
    """Times are UTC, the end of what still fires is NaT."""
    resolved = {**ALERT, "status": "resolved", "endsAt": "2026-03-01T00:05:00Z"}
    post(received, "/notify/page", json={"alerts": [ALERT, resolved], "groupKey": "g"})

    found = received.frame()

    assert list(found["status"]) == ["firing", "resolved"]
    assert found["ends_at"].isna().tolist() == [True, False]
    assert found.iloc[0][["receiver", "name", "group_key", "number"]].tolist() == ["page", "A", "g", 1]
    assert received.frame(after=1).empty


def test_nothing_received_is_an_empty_frame(received: Received) -> None:
    """With its columns and types, and the number 0."""
    assert received.frame().empty
    assert str(received.frame()["time"].dtype).endswith("UTC]")
    assert received.last_number() == 0


@pytest.mark.parametrize(
    ("path", "options", "status"),
    [
        ("/notify/page", {"data": b"{"}, 422),
        ("/notify/page", {"json": []}, 422),
        ("/notify/page", {"json": {"alerts": 3}}, 422),
        ("/notify/", {"json": {"alerts": []}}, 404),
        ("/elsewhere/page", {"json": {"alerts": []}}, 404),
    ],
)
def test_what_is_no_notification_is_refused(
    received: Received, path: str, options: dict[str, object], status: int
) -> None:
    """And nothing of it is kept."""
    with pytest.raises(RequestFailed) as caught:
        post(received, path, **options)

    assert caught.value.status == status
    assert received.last_number() == 0


def test_what_was_acknowledged_is_there_after_a_restart(tmp_path: Path) -> None:
    """Also when the last line was cut off in the middle; numbers go on."""
    path = tmp_path / "n.jsonl"
    Notifications(path).add("page", {"alerts": []})
    with path.open("ab") as file:
        file.write(b'{"number": 2, "rec')

    again = Notifications(path)

    assert [one["number"] for one in again.after(0)] == [1]
    assert again.add("desk", {"alerts": []}) == 2
    assert [one["receiver"] for one in Notifications(path).after(0)] == ["page", "desk"]


def test_every_missing_variable_is_named() -> None:
    """Without its environment the receiver does not start."""
    with pytest.raises(ConfigInvalid, match="WEBHOOK_FILE is missing"):
        main({})
