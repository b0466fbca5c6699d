"""Take a lab off its cluster: its namespace, and the kind cluster that labkit made when no other lab is left on it."""

from __future__ import annotations

from pathlib import Path

from labkit.errors import ClusterGone
from labkit.settings import load_settings
from labkit.stack.cluster import Cluster
from labkit.stack.kind import KindCluster
from labkit.stack.state import ClusterRef
from labkit.stack.tools import kind_tool

__all__ = ["remove_lab"]


def remove_lab(ref: ClusterRef, lab_id: str) -> None:
    """
    Delete all that the lab *lab_id* has on its cluster, and nothing else.  Nothing is wrong if it is gone already.

    Raises:
        ClusterGone: the API server does not answer, and the cluster is not one that labkit may delete whole.
        NotOurs: the namespace belongs to somebody else by now; it was not touched.
        NamespaceStuck: it does not go; says what holds it.
    """
    if not ref.kind:
        Cluster(None, ref.context).delete_namespace(ref.namespace, lab_id)
        return
    kind = KindCluster(ref.kind, Path(ref.kubeconfig), kind_tool(load_settings()))
    if not kind.exists():
        return
    try:
        # The kubeconfig may be that of a cluster of this name which was made anew since.
        kind.export_kubeconfig()
        cluster = Cluster(Path(ref.kubeconfig), ref.context)
        others = [lab for lab in cluster.labs() if lab.lab_id != lab_id]
    except ClusterGone:
        # Its node is stopped or broken: without an answer nobody can be shown to live there.
        others = []
    if others:
        cluster.delete_namespace(ref.namespace, lab_id)
    else:
        kind.delete()
