"""What an instance of a lab on a cluster wrote, and what it adds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial

from labkit.stack.cluster import Cluster

__all__ = ["follow", "last_lines"]

_EVERY_S = 0.5


def last_lines(cluster: Cluster, namespace: str, pod: str, container: str, lines: int) -> list[str]:
    """The last *lines* lines of a container; empty if it has written nothing."""
    return cluster.pod_log(namespace, pod, container, tail=lines).splitlines()


def follow(
    cluster: Cluster,
    namespace: str,
    container: str,
    pod: Callable[[], str],
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[str]:
    """
    What a container writes from now on, without end; its pod may be another one by then.

    Args:
        cluster: where it is.
        namespace: of the lab.
        container: its name.
        pod: the name of the pod that it is in at the moment.
        sleep: pauses between looks; replaced in tests.
    """
    last = ""
    while True:
        query = {"container": container, "timestamps": "true"}
        query |= {"sinceTime": last.partition(".")[0].rstrip("Z") + "Z"} if last else {"tailLines": "1"}
        path = f"/api/v1/namespaces/{namespace}/pods/{pod()}/log"
        text = cluster.api.patiently(partial(cluster.api.text, "GET", path, query=query))
        lines = [line.partition(" ") for line in text.splitlines()]
        # The API takes whole seconds only: what was seen of the last one is left out by its own time.
        fresh = [(stamp, line) for stamp, _, line in lines if stamp > last] if last else []
        if fresh:
            yield "".join(f"{line}\n" for _, line in fresh)
        last = max([last, *(stamp for stamp, _, _ in lines)])
        sleep(_EVERY_S)
