"""HTTP calls to components: one session per thread, a time-out always, errors of our tree."""

from __future__ import annotations

from typing import Any

import requests

from labkit.errors import RequestFailed

__all__ = ["get_json", "is_up", "request"]


def request(
    method: str, url: str, *, timeout_s: float = 10, how: str = "", ok: tuple[int, ...] = (), **options: Any
) -> requests.Response:
    """
    One HTTP exchange that either succeeded or raised.

    Args:
        method: GET, POST, PUT or DELETE.
        url: absolute address.
        timeout_s: limit for connecting and for each read, in seconds.
        how: what the learner should do when it fails; ends the error message.
        ok: further status codes that count as success beside those under 400.
        options: passed to `requests.request` (`json`, `data`, `params`, `headers`).

    Raises:
        RequestFailed: no connection, no answer in time, or a status of 400 and above.
    """
    # Proxies of the environment are for the outside world; components listen on loopback.
    with requests.Session() as session:
        session.trust_env = False
        try:
            response = session.request(method, url, timeout=timeout_s, **options)
        except requests.Timeout as error:
            raise RequestFailed(
                method, url, status=None, reason=f"no answer within {timeout_s:g} s", how=how
            ) from error
        except requests.RequestException as error:
            raise RequestFailed(method, url, status=None, reason=_plain_reason(error), how=how) from error
    if response.status_code >= 400 and response.status_code not in ok:
        body = response.text.strip()[:300]
        raise RequestFailed(method, url, status=response.status_code, reason=body or response.reason, how=how)
    return response


def get_json(url: str, *, timeout_s: float = 10, **options: Any) -> Any:
    """The decoded JSON answer of a GET; errors as in `request`."""
    return request("GET", url, timeout_s=timeout_s, **options).json()


def is_up(url: str, *, timeout_s: float = 1) -> bool:
    """Whether a GET of *url* answers with a status under 400 within *timeout_s* seconds."""
    try:
        request("GET", url, timeout_s=timeout_s)
    except RequestFailed:
        return False
    return True


def _plain_reason(error: requests.RequestException) -> str:
    text = str(error)
    for sign, plain in (
        ("Connection refused", "connection refused: nothing listens there"),
        ("Name or service not known", "the host name cannot be resolved"),
        ("Temporary failure in name resolution", "the host name cannot be resolved"),
        ("Connection reset", "the connection was reset"),
        ("RemoteDisconnected", "the connection was closed without an answer"),
    ):
        if sign in text:
            return plain
    return f"{type(error).__name__}: {text[:200]}"
