"""
Ask Alertmanager, get frames; make and end silences.

    alertmanager = Alertmanager("http://127.0.0.1:9093")
    alertmanager.alerts()
    with alertmanager.silenced({"service": "catalog"}, for_s=600, comment="deploy"):
        ...
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pandas as pd

from labkit._http import request
from labkit._time import utc_now
from labkit.errors import InvalidValue, RequestFailed, UnknownName

__all__ = ["Alertmanager"]

_HOW = "Is it running? See `labkit status`."
_ALERT_COLUMNS = (
    "name", "service", "severity", "state", "starts_at", "silenced_by", "inhibited_by", "receivers", "summary",
    "fingerprint", "labels",
)  # fmt: skip
_SILENCE_COLUMNS = ("id", "state", "matchers", "starts_at", "ends_at", "created_by", "comment")


class Alertmanager:
    """
    An Alertmanager as a source of frames.

    Args:
        url: as in `http://127.0.0.1:9093`.
        timeout_s: limit for connecting and for each answer, in seconds.
    """

    def __init__(self, url: str, *, timeout_s: float = 10) -> None:
        self.url, self._timeout_s = url.rstrip("/"), timeout_s

    def __repr__(self) -> str:
        return f"Alertmanager({self.url!r})"

    def alerts(self) -> pd.DataFrame:
        """
        The alerts that Alertmanager knows now, newest first.

        Returns:
            `name, service, severity, state, starts_at, silenced_by, inhibited_by, receivers, summary, fingerprint,
            labels`.  `state` is active, suppressed (silenced or inhibited) or unprocessed.  Empty when all is well.

        Raises:
            RequestFailed: Alertmanager does not answer.
        """
        found = self._call("GET", "alerts")
        rows = [
            (
                *(one["labels"].get(name, "") for name in ("alertname", "service", "severity")),
                one["status"]["state"],
                one["startsAt"],
                tuple(one["status"]["silencedBy"]),
                tuple(one["status"]["inhibitedBy"]),
                tuple(receiver["name"] for receiver in one["receivers"]),
                one["annotations"].get("summary", ""),
                one["fingerprint"],
                one["labels"],
            )
            for one in found
        ]
        frame = _table(rows, _ALERT_COLUMNS, "starts_at")
        return frame.sort_values("starts_at", ascending=False, ignore_index=True)

    def end(self, alerts: pd.DataFrame) -> None:
        """
        Say that *alerts* are over, for those whose rule is gone: nobody else will, and they would stay for minutes.

        Args:
            alerts: rows of `alerts()`; whoever was told of one is told that it is resolved.

        Raises:
            RequestFailed: Alertmanager does not answer.
        """
        now = utc_now().isoformat()
        body = [
            {"labels": labels, "startsAt": start.isoformat(), "endsAt": now}
            for labels, start in zip(alerts["labels"], alerts["starts_at"], strict=True)
        ]
        if body:
            self._call("POST", "alerts", json=body)

    def silences(self, *, expired: bool = False) -> pd.DataFrame:
        """
        The silences in force or to come; with *expired* also those that ended.

        Returns:
            `id, state, matchers, starts_at, ends_at, created_by, comment`; `matchers` in Alertmanager's own writing.

        Raises:
            RequestFailed: Alertmanager does not answer.
        """
        rows = [
            (
                one["id"],
                one["status"]["state"],
                ", ".join(_written(m) for m in one["matchers"]),
                one["startsAt"],
                one["endsAt"],
                one["createdBy"],
                one["comment"],
            )
            for one in self._call("GET", "silences")
            if expired or one["status"]["state"] != "expired"
        ]
        return _table(rows, _SILENCE_COLUMNS, "starts_at", "ends_at")

    def silence(self, labels: Mapping[str, str], *, for_s: float, comment: str, by: str = "labkit") -> str:
        """
        Hold back every alert that has these *labels*, from now on.

        Args:
            labels: label → value, all of which an alert must have; never empty, which would silence everything.
            for_s: length, in seconds.
            comment: why; the next person on call will read it.
            by: who.

        Returns:
            The id of the silence, for `expire`.

        Raises:
            InvalidValue: no labels, no comment, or a length that is not positive.
            RequestFailed: Alertmanager does not answer.
        """
        if not labels or not all(labels.values()):
            raise InvalidValue("labels", expected="at least one label with a value", got=dict(labels))
        if not comment.strip():
            raise InvalidValue("comment", expected="a reason", got=comment)
        if not for_s > 0:
            raise InvalidValue("for_s", expected="a number of seconds above 0", got=for_s)
        now = utc_now()
        matchers = [{"name": n, "value": v, "isRegex": False, "isEqual": True} for n, v in labels.items()]
        body = {
            "matchers": matchers,
            "startsAt": now.isoformat(),
            "endsAt": (now + timedelta(seconds=for_s)).isoformat(),
            "createdBy": by,
            "comment": comment,
        }
        return str(self._call("POST", "silences", json=body)["silenceID"])

    def expire(self, silence: str) -> None:
        """
        End a silence now; one that has ended already stays so.

        Raises:
            UnknownName: there is no silence with this id.
            RequestFailed: Alertmanager does not answer.
        """
        known = self.silences(expired=True).set_index("id")["state"]
        if silence not in known:
            raise UnknownName("silence", silence, known=list(known.index))
        if known[silence] != "expired":
            self._call("DELETE", f"silence/{silence}")

    def expire_all(self) -> list[str]:
        """End every silence; returns the ids of those that were in force or to come."""
        ids = list(self.silences()["id"])
        for one in ids:
            self.expire(one)
        return ids

    @contextmanager
    def silenced(self, labels: Mapping[str, str], *, for_s: float, comment: str) -> Iterator[str]:
        """A silence for the length of the block, and no longer than *for_s* seconds; as `silence` otherwise."""
        made = self.silence(labels, for_s=for_s, comment=comment)
        try:
            yield made
        finally:
            self.expire(made)

    def _call(self, method: str, path: str, **options: Any) -> Any:
        url = f"{self.url}/api/v2/{path}"
        answer = request(method, url, timeout_s=self._timeout_s, how=_HOW, **options)
        try:
            return answer.json() if answer.content else None
        except ValueError as error:
            reason = "what answers there is not Alertmanager: expected its JSON"
            raise RequestFailed(method, url, status=None, reason=reason, how=_HOW) from error


def _written(matcher: Mapping[str, Any]) -> str:
    sign = {(True, False): "=", (False, False): "!=", (True, True): "=~", (False, True): "!~"}
    return f'{matcher["name"]}{sign[matcher.get("isEqual", True), matcher["isRegex"]]}"{matcher["value"]}"'


def _table(rows: list[tuple[Any, ...]], columns: tuple[str, ...], *times: str) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=list(columns))
    for name in times:
        frame[name] = pd.to_datetime(frame[name], utc=True, format="ISO8601")
    return frame
