"""JupyterLab for the lab: the pages of its components behind JupyterLab's own address and login."""

import os
import re
from urllib.parse import urlsplit

c = get_config()  # noqa: F821

# name → title; `labkit jupyter` puts the addresses of the running lab into the environment.
_PAGES = {"prometheus": "Prometheus", "alertmanager": "Alertmanager"}


def _below(name):
    """
    A rewriter that moves a page's links below the path at which JupyterLab shows it.

    Debian's build of Prometheus has pages of the older kind, whose links start at the root of the server; those of
    the publisher's build are relative and are left as they are.
    """

    def rewrite(response, request):
        if "text/html" in response.headers.get("Content-Type", ""):
            prefix = f"{request.uri.split(f'/{name}/', 1)[0]}/{name}".encode()
            body = re.sub(rb'(href|src|action)="/(?!/)', rb'\1="' + prefix + b"/", response.body)
            response.body = body.replace(b'PATH_PREFIX = ""', b'PATH_PREFIX = "' + prefix + b'"')

    return rewrite


c.ServerProxy.servers = {
    name: {
        "port": urlsplit(os.environ[f"LABKIT_UI_{name.upper()}"]).port,
        "launcher_entry": {"title": title, "enabled": True},
        "rewrite_response": _below(name),
    }
    for name, title in _PAGES.items()
    if f"LABKIT_UI_{name.upper()}" in os.environ
}
