"""Take a lab off its cluster: its namespace, and the kind cluster that labkit made when no other lab is left on it."""

from __future__ import annotations

from pathlib import Path

from labkit.errors import ClusterGone, CommandFailed, NotReady
from labkit.settings import load_settings
from labkit.stack.cluster import Cluster, LabNamespace
from labkit.stack.cluster_api import GRACE_S
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
    with kind.held():
        half_made = kind.end_unfinished()
        if not kind.exists():
            return
        others = [] if half_made else _others(kind, ref, lab_id)
        if not others:
            kind.delete()
            return
    Cluster(Path(ref.kubeconfig), ref.context).delete_namespace(ref.namespace, lab_id)


def _others(kind: KindCluster, ref: ClusterRef, lab_id: str) -> list[LabNamespace]:
    """Who else lives on the cluster; a node that is stopped is started to ask.  A broken one can be nobody's home."""
    try:
        kind.start_nodes()
        kind.wait_for_answer(GRACE_S)
        # The kubeconfig may be that of a cluster of this name which was made anew since.
        kind.export_kubeconfig()
        return [lab for lab in Cluster(Path(ref.kubeconfig), ref.context).labs() if lab.lab_id != lab_id]
    except (ClusterGone, CommandFailed, NotReady):
        return []
