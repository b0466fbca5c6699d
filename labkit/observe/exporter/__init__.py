"""The exporter: machine, MariaDB, Redis and business figures for Prometheus (`python -m labkit.observe.exporter`)."""
