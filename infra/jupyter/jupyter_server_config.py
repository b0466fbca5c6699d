"""JupyterLab for the lab: the pages of its components behind JupyterLab's own address and login."""

import os
from urllib.parse import urlsplit

c = get_config()  # noqa: F821

# name → (title, address); labkit puts the addresses of the running lab into the environment.
_PAGES = {"prometheus": "Prometheus", "alertmanager": "Alertmanager"}

c.ServerProxy.servers = {
    name: {
        "port": urlsplit(os.environ[f"LABKIT_UI_{name.upper()}"]).port,
        "url": os.environ[f"LABKIT_UI_{name.upper()}"],
        "launcher_entry": {"title": title, "enabled": True},
    }
    for name, title in _PAGES.items()
    if f"LABKIT_UI_{name.upper()}" in os.environ
}
