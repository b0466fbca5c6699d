"""
The links between services, as proxies of toxiproxy.

A few REST calls of our own: the one client on PyPI (toxiproxy-python 0.1.1) has had no release since 2019.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from labkit._http import get_json, request
from labkit._yaml import load_model
from labkit.errors import ConfigInvalid
from labkit.settings import files_root

__all__ = ["Link", "apply_links", "links_file", "read_links", "remove_toxics"]

_HOW = "See `labkit logs toxiproxy`."


class Link(BaseModel):
    """One link: what callers connect to, and the component behind it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    listen: int = Field(ge=1, le=65535)
    upstream: str


class _Links(BaseModel):
    model_config = ConfigDict(extra="forbid")

    links: list[Link]


def links_file() -> Path:
    """Where the links are declared."""
    return files_root() / "infra" / "shop" / "links.yaml"


def read_links(path: Path | None = None) -> list[Link]:
    """The links declared in *path*; raises ConfigInvalid with every mistake."""
    return load_model(_Links, path or links_file()).links


def apply_links(
    api_url: str,
    upstreams: Mapping[str, str],
    *,
    listen_host: str = "127.0.0.1",
    listen_offset: int = 0,
    links: list[Link] | None = None,
) -> list[str]:
    """
    Make toxiproxy have exactly the declared links, all open and without toxics; safe to repeat.

    Connections through a link that was already right are not touched.

    Args:
        api_url: of toxiproxy.
        upstreams: instance → `host:port` where toxiproxy reaches it.
        listen_host: address that links listen on; `0.0.0.0` is every one.
        listen_offset: added to the declared port that each link listens on.
        links: those of `infra/shop/links.yaml` if None.

    Returns:
        The names of the links that were made or changed; empty when nothing had to be done.

    Raises:
        ConfigInvalid: a link leads to an instance that *upstreams* does not have.
        RequestFailed: toxiproxy does not answer or refuses, for example because a port is taken.  While a link waits
            for an upstream that swallows packets, changing that link stops the whole API for up to two minutes;
            only a restart of toxiproxy ends that.
    """
    links = read_links() if links is None else links
    missing = sorted({link.upstream for link in links} - set(upstreams))
    if missing:
        known = ", ".join(sorted(upstreams))
        raise ConfigInvalid("The links of the shop", problems=[f"`{m}` has no port; known: {known}" for m in missing])
    wanted = {
        link.name: {
            "name": link.name,
            "listen": f"{listen_host}:{link.listen + listen_offset}",
            "upstream": upstreams[link.upstream],
            "enabled": True,
        }
        for link in links
    }
    present: dict[str, Any] = get_json(f"{api_url}/proxies")
    for name in sorted(set(present) - set(wanted)):
        request("DELETE", f"{api_url}/proxies/{name}", how=_HOW)
    changed = [name for name, proxy in wanted.items() if not _same(present.get(name), proxy)]
    if changed:
        request("POST", f"{api_url}/populate", json=[wanted[name] for name in changed], how=_HOW)
    remove_toxics(api_url)
    return changed


def remove_toxics(api_url: str) -> int:
    """
    Take every toxic off every link and open links that were shut.

    Returns:
        How many toxics there were.

    Raises:
        RequestFailed: toxiproxy does not answer.
    """
    proxies: dict[str, Any] = get_json(f"{api_url}/proxies")
    if any(proxy["toxics"] or not proxy["enabled"] for proxy in proxies.values()):
        request("POST", f"{api_url}/reset", how=_HOW)
    return sum(len(proxy["toxics"]) for proxy in proxies.values())


def _same(present: Mapping[str, Any] | None, wanted: Mapping[str, Any]) -> bool:
    if present is None:
        return False
    # However every address of a machine was written, toxiproxy calls it [::].
    listen = str(present["listen"]).replace("[::]:", "0.0.0.0:")
    return {**present, "listen": listen}.items() >= wanted.items()
