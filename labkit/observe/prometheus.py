"""
Ask Prometheus, get frames.

    prometheus = Prometheus("http://127.0.0.1:9090")
    prometheus.value('sum(up{job="shop"})')
    prometheus.query_range("sum by (status) (rate(http_requests_total[5m]))", start, end)

Built on `prometheus_api_client.PrometheusConnect`: its session, retries, instant queries, label
values and targets.  Three of its parts are replaced (docs/decisions/0004-metrics-to-frames.md):
`MetricRangeDataFrame`, which makes a Python dictionary of every sample and one row per sample
without a common grid; `custom_query_range`, which rounds the interval to whole seconds; and its
errors, which hold the answer as the text of a bytes literal.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Self

import pandas as pd
import requests
from prometheus_api_client import PrometheusConnect
from urllib3.util.retry import Retry

from labkit._time import as_utc, utc_now
from labkit.errors import NoData, QueryError, RequestFailed
from labkit.observe import _explain, _matrix

__all__ = ["Prometheus"]

_MOST_INSTANTS = 11_000
_HOW = "Is it running? See `labkit status`."

_TARGET_COLUMNS = ("job", "instance", "service", "health", "last_error", "last_scrape", "scrape_s", "url")
_RULE_COLUMNS = ("group", "name", "kind", "query", "for_s", "state", "health", "last_error", "evaluation_s")
_ALERT_COLUMNS = ("name", "severity", "state", "active_since", "value", "summary", "labels")
_EXEMPLAR_COLUMNS = ("time", "trace_id", "value", "labels")


class Prometheus:
    """
    A Prometheus server as a source of frames; also a context manager that closes its connections.

    Args:
        url: as in `http://127.0.0.1:9090`.
        timeout_s: limit for connecting and for each answer, in seconds.
    """

    def __init__(self, url: str, *, timeout_s: float = 30) -> None:
        self.url = url.rstrip("/")
        self._timeout_s = timeout_s
        self._session = requests.Session()
        # Components listen on loopback: no proxy of the environment, and no time spent on compression.
        self._session.trust_env = False
        self._session.headers["Accept-Encoding"] = "identity"
        self._session.hooks["response"] = [_raise_refused]
        self._client = PrometheusConnect(
            self.url,
            session=self._session,
            timeout=timeout_s,
            retry=Retry(total=2, connect=2, read=0, status=0, backoff_factor=0.1),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Prometheus({self.url!r})"

    def close(self) -> None:
        """Close the connections; twice is fine."""
        self._client.close()

    def query(self, promql: str, at: datetime | None = None) -> pd.DataFrame:
        """
        Evaluate *promql* at one instant and return one row per series.

        Args:
            promql: the expression, exactly as you would type it in Prometheus.
            at: timezone-aware instant; now if None.

        Returns:
            One column per label, sorted by name, "" where a series lacks it (a label `value` becomes
            `label_value`), and `value`, float64.  A scalar is one row; of a string, `value` is the text.  A range
            such as `up[1m]` gives its raw samples: one row each, with a column `time`, UTC.

        Raises:
            NoData: nothing matched at that instant.
            QueryRejected: Prometheus refused the expression; the message points at the character.
            QueryError: the answer is native histograms.
            RequestFailed: Prometheus does not answer.
            ValueError: *at* has no time zone.
        """
        moment = utc_now() if at is None else as_utc(at)
        found = self._ask(
            promql, lambda: self._client.custom_query(promql, params={"time": f"{moment.timestamp():.3f}"})
        )
        if found and not isinstance(found[0], dict):
            return _scalar_frame(found[1])
        if not found:
            raise NoData(promql, start=moment, end=moment, nearest=self._nearest(promql, moment, moment))
        _refuse_histograms(promql, found)
        return _rows_frame(found)

    def value(self, promql: str, at: datetime | None = None) -> float:
        """
        The one number that *promql* is.

        Raises:
            QueryError: there is more than one series; the message lists them.
            NoData, QueryRejected, RequestFailed, ValueError: as in `query`.
        """
        frame = self.query(promql, at)
        if len(frame) != 1:
            labels = frame.drop(columns=["value", "time"], errors="ignore")
            # What all share would hide what tells them apart.
            differ = labels.loc[:, [c for c in labels if c == "__name__" or labels[c].nunique() > 1]]
            listed = "".join(f"\n  {_as_selector(one)}" for one in differ.head(10).to_dict("records"))
            listed += "\n  …" if len(frame) > 10 else ""
            raise QueryError(
                f"`{promql}` was asked for one value and has {len(frame)} series:{listed}\n"
                f"Aggregate it, as in `sum({promql})`, or add a label that tells them apart."
            )
        return float(frame["value"].iloc[0])

    def query_range(self, promql: str, start: datetime, end: datetime, step_s: float = 15) -> pd.DataFrame:
        """
        Evaluate *promql* at regular instants and return one column per series.

        Args:
            promql: the expression, exactly as you would type it in Prometheus.
            start: timezone-aware first instant.
            end: timezone-aware last instant, included.
            step_s: distance between instants, in seconds.

        Returns:
            A frame of float64.  Index: `time`, UTC, every `step_s` seconds, ascending, complete.
            Columns: a MultiIndex of the labels that differ between series; labels equal in all
            series are in `frame.attrs["labels"]`.  An instant without a sample is `nan`.  A single
            series has the column `("value",)` in a level named `series`.

        Raises:
            NoData: no series matched in the whole interval.
            QueryRejected: Prometheus refused the expression; the message points at the character.
            QueryError: the answer is native histograms.
            RequestFailed: Prometheus does not answer.
            ValueError: `start` or `end` has no time zone, `end` is before `start`, the step is under a
                millisecond, or more than 11 000 instants were asked for.
        """
        start, end = as_utc(start), as_utc(end)
        start_ms, step_ms = round(start.timestamp() * 1000), round(step_s * 1000)
        instants = _count_instants(start, end, start_ms, step_ms)
        params = {"query": promql, "start": start_ms / 1000, "end": round(end.timestamp() * 1000) / 1000}
        params["step"] = step_ms / 1000
        found = self._ask(promql, lambda: _matrix.parse_matrix(self._get("query_range", params).content))
        if not found:
            raise NoData(promql, start=start, end=end, nearest=self._nearest(promql, start, end))
        if any(not len(one.times_s) for one in found):
            raise _histograms(promql)
        frame = _matrix.to_frame(found, start_ms=start_ms, step_ms=step_ms, instants=instants)
        frame.attrs.update(query=promql, step_s=step_s)
        return frame

    def targets(self) -> pd.DataFrame:
        """
        What Prometheus scrapes: `job, instance, service, health, last_error, last_scrape, scrape_s, url`.

        `service` is "" for what is no part of the shop; `health` is up, down or unknown (not scraped yet, then
        `last_scrape` is NaT).  Empty when there is no target.
        """
        found = self._ask(None, lambda: self._client.get_targets(state="active"))["activeTargets"]
        rows = [
            (
                *(one["labels"].get(name, "") for name in ("job", "instance", "service")),
                one["health"],
                one["lastError"],
                _instant(one["lastScrape"]),
                one["lastScrapeDuration"],
                one["scrapeUrl"],
            )
            for one in found
        ]
        return _table(rows, _TARGET_COLUMNS, times=("last_scrape",)).sort_values(["job", "instance"], ignore_index=True)

    def rules(self) -> pd.DataFrame:
        """
        The rules in force: `group, name, kind, query, for_s, state, health, last_error, evaluation_s`.

        `kind` is alerting or recording; `for_s` is nan and `state` "" for a recording rule.  Empty when there is none.
        """
        groups = self._data("rules")["groups"]
        rows = [
            (
                group["name"],
                rule["name"],
                rule["type"],
                rule["query"],
                rule.get("duration", float("nan")),
                rule.get("state", ""),
                rule["health"],
                rule.get("lastError", ""),
                rule["evaluationTime"],
            )
            for group in groups
            for rule in group["rules"]
        ]
        return _table(rows, _RULE_COLUMNS)

    def alerts(self) -> pd.DataFrame:
        """
        Alerts that are pending or firing: `name, severity, state, active_since, value, summary, labels`.

        `labels` are the remaining labels as a dictionary.  Empty when nothing is wrong.
        """
        rows = [_alert_row(one) for one in self._data("alerts")["alerts"]]
        return _table(rows, _ALERT_COLUMNS, times=("active_since",))

    def exemplars(self, selector: str, start: datetime, end: datetime) -> pd.DataFrame:
        """
        The exemplars that Prometheus keeps beside samples: single observations that name their trace.

        Args:
            selector: series or an expression of them, as in `http_request_duration_seconds_bucket{service="cart"}`.
            start: timezone-aware first instant.
            end: timezone-aware last instant, included.

        Returns:
            `time` (UTC), `trace_id` ("" without one), `value` (as observed), `labels` (of the series, as a dictionary),
            oldest first.  Empty when there is none: only the newest of each scrape is kept.

        Raises:
            QueryRejected, RequestFailed, ValueError: as in `query`.
        """
        params = {"query": selector, "start": as_utc(start).timestamp(), "end": as_utc(end).timestamp()}
        found = self._ask(selector, lambda: self._get("query_exemplars", params).json()["data"])
        rows = [
            (datetime.fromtimestamp(one["timestamp"], UTC), one["labels"].get("trace_id", ""), float(one["value"]), s)
            for s, exemplars in ((each["seriesLabels"], each["exemplars"]) for each in found)
            for one in exemplars
        ]
        return _table(rows, _EXEMPLAR_COLUMNS, times=("time",)).sort_values("time", ignore_index=True)

    def version(self) -> str:
        """The version of the server, as in `2.42.0`."""
        return str(self._data("status/buildinfo")["version"])

    def series_count(self) -> int:
        """How many series had a sample in the last hours (the head of its database)."""
        return int(self._data("status/tsdb")["headStats"]["numSeries"])

    def label_values(self, label: str, selector: str = "", *, start: datetime, end: datetime) -> list[str]:
        """The values that *label* has in the interval, on series that match *selector* (all if empty); sorted."""
        params: dict[str, Any] = {"start": as_utc(start).timestamp(), "end": as_utc(end).timestamp()}
        if selector:
            params["match[]"] = selector
        return sorted(self._ask(None, lambda: self._client.get_label_values(label, params=params)))

    def _data(self, path: str) -> Any:
        return self._ask(None, lambda: self._get(path, {}).json()["data"])

    def _get(self, path: str, params: Mapping[str, Any]) -> requests.Response:
        # The same session as the client's, so the same retries.
        return self._session.get(f"{self.url}/api/v1/{path}", params=params, timeout=self._timeout_s)

    def _ask(self, promql: str | None, call: Callable[[], Any]) -> Any:
        """The answer of *call*, with every failure in words of our tree."""
        try:
            return call()
        except _Refused as refused:
            raise _failure(promql, refused.response) from None
        except requests.Timeout as error:
            raise self._unanswered(f"no answer within {self._timeout_s:g} s") from error
        except requests.ConnectionError as error:
            raise self._unanswered("nothing listens there, or the connection broke") from error
        except (json.JSONDecodeError, KeyError) as error:
            raise self._unanswered("what answers there is not Prometheus: expected its JSON") from error
        except requests.RequestException as error:
            raise self._unanswered(f"the answer broke off ({type(error).__name__})") from error

    def _unanswered(self, reason: str) -> RequestFailed:
        return RequestFailed("GET", self.url, status=None, reason=reason, how=_HOW)

    def _nearest(self, promql: str, start: datetime, end: datetime) -> str:
        # An instant looks back five minutes; so does the search for what has data.
        since = start - pd.Timedelta(minutes=5).to_pytimedelta()
        return _explain.nearest_advice(
            promql, lambda label, selector: self.label_values(label, selector, start=since, end=end)
        )


class _Refused(Exception):
    """Carries a refusal out of the client, which would keep only its text."""

    def __init__(self, response: requests.Response) -> None:
        self.response = response
        super().__init__(response.status_code)


def _raise_refused(response: requests.Response, **_: object) -> None:
    if response.status_code >= 400:
        raise _Refused(response)


def _failure(promql: str | None, response: requests.Response) -> QueryError | RequestFailed:
    try:
        said = str(response.json()["error"])
    except (ValueError, KeyError, TypeError):
        said = response.text.strip()[:300] or response.reason
    if promql is not None and response.status_code in {400, 422}:
        return _explain.rejected(promql, said)
    address = response.url.partition("?")[0]
    return RequestFailed("GET", address, status=response.status_code, reason=said, how=_HOW)


def _count_instants(start: datetime, end: datetime, start_ms: int, step_ms: int) -> int:
    if step_ms < 1:
        raise ValueError(f"step_s must be at least 0.001 (a millisecond), got {step_ms / 1000:g}")
    span_ms = round(end.timestamp() * 1000) - start_ms
    if span_ms < 0:
        raise ValueError(f"end ({end.isoformat()}) is before start ({start.isoformat()})")
    instants = span_ms // step_ms + 1
    if instants > _MOST_INSTANTS:
        enough_s = -(-span_ms // (_MOST_INSTANTS - 1)) / 1000
        raise ValueError(
            f"{instants:,} instants were asked for and Prometheus gives at most {_MOST_INSTANTS:,}; "
            f"use step_s={enough_s:g} or more, or a shorter interval"
        )
    return instants


def _scalar_frame(text: str) -> pd.DataFrame:
    try:
        return pd.DataFrame({"value": [float(text)]})
    except ValueError:
        return pd.DataFrame({"value": [text]})


def _rows_frame(found: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    names = sorted({name for one in found for name in one["metric"]})
    rows = [
        ([one["metric"].get(name, "") for name in names], moment, value)
        for one in found
        for moment, value in one.get("values", [one.get("value")])
    ]
    frame = pd.DataFrame(
        [labels for labels, _, _ in rows], columns=["label_value" if name == "value" else name for name in names]
    )
    if "values" in found[0]:
        frame["time"] = pd.to_datetime([round(moment * 1000) for _, moment, _ in rows], unit="ms", utc=True)
    frame["value"] = pd.Series([float(value) for _, _, value in rows], dtype="float64")
    return frame


def _refuse_histograms(promql: str, found: Sequence[Mapping[str, Any]]) -> None:
    if any("histogram" in one or "histograms" in one for one in found):
        raise _histograms(promql)


def _histograms(promql: str) -> QueryError:
    return QueryError(
        f"`{promql}` gives native histograms, which are not numbers. "
        f"Take one out: histogram_quantile(0.95, …), histogram_count(…) or histogram_sum(…)."
    )


def _alert_row(one: Mapping[str, Any]) -> tuple[Any, ...]:
    labels = dict(one["labels"])
    return (
        labels.pop("alertname", ""),
        labels.pop("severity", ""),
        one["state"],
        _instant(one["activeAt"]),
        float(one["value"]),
        one["annotations"].get("summary", ""),
        labels,
    )


def _instant(text: str) -> datetime | None:
    # Prometheus writes "never" as the year 1.
    moment = pd.Timestamp(text) if not text.startswith("0001-") else None
    return None if moment is None else moment.tz_convert(UTC).to_pydatetime(warn=False)


def _table(rows: Sequence[Sequence[Any]], columns: Sequence[str], times: Sequence[str] = ()) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=list(columns))
    for name in times:
        frame[name] = pd.to_datetime(frame[name], utc=True)
    return frame


def _as_selector(labels: Mapping[Any, Any]) -> str:
    name = labels.get("__name__", "")
    inside = ", ".join(f'{key}="{value}"' for key, value in labels.items() if key != "__name__" and value != "")
    return f"{name}{{{inside}}}"
