"""Docker: what is wrong with it, before anything is made."""

from __future__ import annotations

__all__ = ["pull_problem"]

# Words of Docker, containerd and registries, and what they mean; the first that is found counts.
_PULL_PROBLEMS = (
    (("toomanyrequests", "pull rate limit", "429 too many"), "the registry's limit of pulls is used up for now (rate limit)"),
    (("no such host", "server misbehaving", "name resolution"), "the registry's name cannot be resolved (no network?)"),
    (("i/o timeout", "connection refused", "network is unreachable", "tls handshake timeout",
      "client.timeout exceeded", "context deadline exceeded"), "the registry does not answer (no network?)"),
    (("manifest unknown", "manifest for", "not found: manifest", "repository does not exist", "pull access denied",
      "no match for platform", "unauthorized", "denied: "), "the registry has no such image, or refuses it to this user"),
)  # fmt: skip


def pull_problem(said: str) -> str:
    """
    Why an image could not be pulled, in words that start in lower case; empty when *said* is about something else.

    >>> pull_problem("dial tcp: lookup registry-1.docker.io: no such host")
    "the registry's name cannot be resolved (no network?)"
    >>> pull_problem("exec format error")
    ''
    """
    lowered = said.lower()
    for words, meaning in _PULL_PROBLEMS:
        if any(word in lowered for word in words):
            return meaning
    return ""
