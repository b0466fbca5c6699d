"""Write infra/grafana/dashboards/ anew from the definitions."""

from __future__ import annotations

from labkit.observe.dashboards import folder, generate

if __name__ == "__main__":
    for name, text in generate().items():
        (folder() / name).write_text(text, encoding="utf-8")
