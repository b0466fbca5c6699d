"""Small things to run on a cluster, from the image that every node of the rig has."""

from __future__ import annotations

from tests.kind.rig.node_image import TOOLS_IMAGE

__all__ = ["WEB", "pod"]

# Two pods, one per node, each of which answers with its name.
WEB = f"""
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web}}
spec:
  replicas: 2
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      terminationGracePeriodSeconds: 0
      tolerations: [{{operator: Exists}}]
      topologySpreadConstraints:
        - maxSkew: 1
          topologyKey: kubernetes.io/hostname
          whenUnsatisfiable: DoNotSchedule
          nodeTaintsPolicy: Ignore
          labelSelector: {{matchLabels: {{app: web}}}}
      containers:
        - name: web
          image: {TOOLS_IMAGE}
          command: [sh, -c, 'mkdir /tmp/www && hostname > /tmp/www/name && httpd -f -p 8080 -h /tmp/www']
          readinessProbe: {{httpGet: {{path: /name, port: 8080}}, periodSeconds: 1}}
---
apiVersion: v1
kind: Service
metadata: {{name: web}}
spec:
  selector: {{app: web}}
  ports: [{{port: 80, targetPort: 8080}}]
"""


def pod(name: str, command: str, *, image: str = TOOLS_IMAGE, more: str = "", pod_more: str = "") -> str:
    """The manifest of a pod that runs a shell command once; *more* is added to its container."""
    return f"""
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: {name}}}}}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 0
{pod_more}
  containers:
    - name: {name}
      image: {image}
      imagePullPolicy: IfNotPresent
      command: [sh, -c, '{command}']
{more}
"""
