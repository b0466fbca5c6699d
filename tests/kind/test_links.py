"""A link of toxiproxy, while the pod behind it is replaced."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from tests.kind.kind_lab import KindLab

pytestmark = [pytest.mark.kind, pytest.mark.timeout(600)]

# Asks for 40 s; says how long the longest request took, and what the last one got.
_ASK = """
import json, time, urllib.error, urllib.request
print("asking", flush=True)
start, worst_s, last = time.monotonic(), 0, None
while time.monotonic() - start < 40:
    began = time.monotonic()
    try:
        last = urllib.request.urlopen("http://toxiproxy:8283/readyz", timeout=30).status
    except urllib.error.HTTPError as error:
        last = error.code
    except OSError as error:
        last = repr(error)
    worst_s = max(worst_s, time.monotonic() - began)
    time.sleep(0.2)
print(json.dumps({"worst_s": worst_s, "last": last}))
"""


def test_nobody_waits_for_an_address_that_is_gone(kind_lab: KindLab) -> None:
    """
    Who asks cart while its pod is replaced is refused within seconds, and answered again when the next pod is ready.

    Without the container that lingers, toxiproxy waits two minutes for the pod that was, and nobody gets through.
    """
    assert kind_lab.state.cluster is not None
    argv = ["kubectl", "--kubeconfig", kind_lab.state.cluster.kubeconfig, "-n", kind_lab.namespace]
    argv += ["exec", "deployment/worker", "--", "python3", "-c", _ASK]
    engine = kind_lab.engine
    env = {**os.environ, **engine.environment}
    with subprocess.Popen([*engine.enter, *argv], env=env, stdout=subprocess.PIPE, text=True) as asking:
        assert asking.stdout is not None
        assert asking.stdout.readline() == "asking\n"
        kind_lab.kubectl("delete", "pod", "--selector", "app.kubernetes.io/name=cart", "--wait=false")
        said, _ = asking.communicate(timeout=120)
    seen = json.loads(said)

    assert seen["last"] == 200, seen
    assert seen["worst_s"] < 10, seen
