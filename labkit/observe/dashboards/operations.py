"""
The operations dashboard: seven panels, from "is anything down" to "does the business suffer".

Rules that every query here keeps: rate before sum; ratios are ratios of sums, never averages of ratios; quantiles are
taken from summed buckets; `instance` is aggregated away, so that replicas, restarts and the seeded past add up.
"""

from __future__ import annotations

import json

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import stat, timeseries
from grafana_foundation_sdk.builders.dashboard import (
    ConstantVariable,
    Dashboard,
    DashboardLink,
    QueryVariable,
    ThresholdsConfig,
)
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    DataSourceRef,
    DynamicConfigValue,
    GridPos,
    Threshold,
    ThresholdsMode,
    VariableOption,
)

__all__ = ["UID", "to_json"]

UID = "labkit-operations"

_PROMETHEUS = DataSourceRef(type_val="prometheus", uid="prometheus")
# A variable, so that whoever serves the runbooks as pages sets one address.
_RUNBOOKS = "infra/runbooks"

_REQUESTS = 'rate(http_requests_total{job="shop", service=~"$service"}[$__rate_interval])'
_FAILED = 'rate(http_requests_total{job="shop", service=~"$service", status=~"5.."}[$__rate_interval])'
_BUCKETS = 'rate(http_request_duration_seconds_bucket{job="shop", service=~"$service"}[$__rate_interval])'
_DB_BUCKETS = 'rate(db_query_duration_seconds_bucket{job="shop"}[$__rate_interval])'


def _error_share(by: str) -> str:
    """Failed over all; where a status 5xx never was seen the share is 0, where nobody asked it is unknown (NaN)."""
    grouped = f"sum by ({by}) " if by else "sum "
    total = f"{grouped}({_REQUESTS})"
    return f"({grouped}({_FAILED}) or 0 * {total}) / {total}"


def to_json() -> str:
    """The dashboard as the text of its file."""
    return json.dumps(_dashboard().build(), cls=JSONEncoder, indent=2, sort_keys=True) + "\n"


def _dashboard() -> Dashboard:
    dashboard = (
        Dashboard("SRE Operations Dashboard")
        .uid(UID)
        .description("Is it up, do users notice, why, and what does it cost?")
        .tags(["sre", "monitoring", "operations"])
        .timezone("utc")
        .refresh("30s")
        .time("now-15m", "now")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .with_variable(_service_variable())
        .with_variable(ConstantVariable("runbooks").label("Where the runbooks are").value(_RUNBOOKS))
    )
    for number, panel in enumerate(_panels(), start=1):
        dashboard = dashboard.with_panel(panel.id(number).datasource(_PROMETHEUS))
    return dashboard


def _service_variable() -> QueryVariable:
    return (
        QueryVariable("service")
        .label("Service")
        .description("Whose requests the panels of requests, errors and response times show.")
        .datasource(_PROMETHEUS)
        .query('label_values(http_requests_total{job="shop"}, service)')
        .current(VariableOption(text="gateway", value="gateway"))
    )


def _panels() -> list[stat.Panel | timeseries.Panel]:
    return [
        _health(),
        _request_rate(),
        _error_rate(),
        _response_time(),
        _system(),
        _database(),
        _business(),
    ]


def _health() -> stat.Panel:
    return (
        stat.Panel()
        .title("Service Health Overview")
        .description("Share of each service's replicas that answered the last scrape, and the probe from outside.")
        .grid_pos(GridPos(h=4, w=24, x=0, y=0))
        .unit("percentunit")
        .min(0)
        .max(1)
        .no_value("no data")
        .thresholds(_steps((None, "red"), (0.01, "orange"), (1, "green")))
        .links([_runbook("ApplicationDown"), _runbook("ReplicaDown")])
        .with_target(_query("A", 'avg by (service) (up{job="shop"})', "{{service}}", instant=True))
        .with_target(_query("B", 'min (probe_success{job="probe"})', "from outside", instant=True))
    )


def _request_rate() -> timeseries.Panel:
    return (
        _lines("Request Rate", x=0, y=4, unit="reqps", axis="requests")
        .description("Answered requests a second by endpoint. A fall to nothing is as telling as a rise.")
        .with_target(_query("A", f"sum by (method, endpoint) ({_REQUESTS})", "{{method}} {{endpoint}}"))
    )


def _error_rate() -> timeseries.Panel:
    return (
        _lines("Error Rate", x=12, y=4, unit="percentunit", axis="share of requests")
        .description("Share of requests that were answered with 5xx: all, and by endpoint.")
        .axis_soft_max(0.06)
        .max(1)
        .thresholds(_steps((None, "green"), (0.01, "orange"), (0.05, "red")))
        .thresholds_style(_dashed())
        .links([_runbook("HighErrorRate")])
        .with_target(_query("A", _error_share(""), "all"))
        .with_target(_query("B", _error_share("method, endpoint"), "{{method}} {{endpoint}}"))
    )


def _response_time() -> timeseries.Panel:
    return (
        _lines("Response Time (95th percentile)", x=0, y=12, unit="s", axis="time to answer")
        .description("95 and 50 of 100 answers came within this time; and the same of statements to the database.")
        .axis_soft_max(0.6)
        .thresholds(_steps((None, "green"), (0.5, "orange"), (1, "red")))
        .thresholds_style(_dashed())
        .links([_runbook("HighLatency")])
        .with_target(_query("A", f"histogram_quantile(0.95, sum by (le) ({_BUCKETS}))", "95th percentile"))
        .with_target(_query("B", f"histogram_quantile(0.50, sum by (le) ({_BUCKETS}))", "50th percentile"))
        .with_target(_query("C", f"histogram_quantile(0.95, sum by (le) ({_DB_BUCKETS}))", "database, 95th"))
    )


def _system() -> timeseries.Panel:
    busiest = 'max(rate(process_cpu_seconds_total{job="shop"}[$__rate_interval]))'
    return (
        _lines("System Resources", x=12, y=12, unit="percentunit", axis="share in use")
        .description(
            "Processor, memory and fullest disk of the machine; the busiest process of the shop (100 % = a core)."
        )
        .max(1)
        .thresholds(_steps((None, "green"), (0.9, "orange")))
        .thresholds_style(_dashed())
        .links([_runbook("HighCPUUsage"), _runbook("HighMemoryUsage")])
        .with_target(_query("A", 'max(system_cpu_usage_ratio{job="exporter"})', "processor"))
        .with_target(_query("B", 'max(system_memory_usage_ratio{job="exporter"})', "memory"))
        .with_target(_query("C", 'max(system_filesystem_usage_ratio{job="exporter"})', "fullest disk"))
        .with_target(_query("D", busiest, "busiest process"))
    )


def _database() -> timeseries.Panel:
    return (
        _lines("Database Performance", x=0, y=20, unit="short", axis="connections, queries/s")
        .description(
            "Connections that work now, of those open; callers in the shop that wait for one; queries a second."
        )
        .links([_runbook("HighLatency")])
        .override_by_name("queries/s", _own_unit("ops"))
        .override_by_name("waiting callers", _own_thresholds((None, "green"), (1, "orange"), (5, "red")))
        .with_target(_query("A", 'sum(database_connections_active{job="exporter"})', "active connections"))
        .with_target(_query("B", 'sum(database_connections{job="exporter"})', "open connections"))
        .with_target(_query("C", 'sum(db_pool_waiting{job="shop"})', "waiting callers"))
        .with_target(_query("D", 'sum(rate(database_queries_total{job="exporter"}[$__rate_interval]))', "queries/s"))
    )


def _business() -> timeseries.Panel:
    orders = '60 * sum(rate(orders_processed_total{job="exporter", status="placed"}[$__rate_interval]))'
    return (
        _lines("Business Metrics", x=12, y=20, unit="short", axis="users, orders/min")
        .description("Customers who were here in the last minutes, and orders a minute.")
        .links([_runbook("HighErrorRate"), _runbook("QueueBacklog")])
        .override_by_name("orders/min", _own_thresholds((None, "red"), (20, "orange"), (50, "green")))
        .with_target(_query("A", 'max(active_users{job="exporter"})', "active users"))
        .with_target(_query("B", orders, "orders/min"))
    )


def _lines(title: str, *, x: int, y: int, unit: str, axis: str) -> timeseries.Panel:
    return (
        timeseries.Panel()
        .title(title)
        .grid_pos(GridPos(h=8, w=12, x=x, y=y))
        .unit(unit)
        .min(0)
        .axis_label(axis)
        .line_width(2)
        .thresholds(_steps((None, "green")))
        .legend(_legend())
    )


def _legend() -> common_builders.VizLegendOptions:
    return (
        common_builders.VizLegendOptions()
        .display_mode(common.LegendDisplayMode.TABLE)
        .placement(common.LegendPlacement.BOTTOM)
        .show_legend(True)
        .calcs(["lastNotNull"])
    )


def _dashed() -> common_builders.GraphThresholdsStyleConfig:
    return common_builders.GraphThresholdsStyleConfig().mode(common.GraphThresholdsStyleMode.DASHED)


def _query(ref: str, expr: str, legend: str, *, instant: bool = False) -> Dataquery:
    query = Dataquery().ref_id(ref).datasource(_PROMETHEUS).expr(expr).legend_format(legend)
    return query.instant() if instant else query.range()


def _steps(*steps: tuple[float | None, str]) -> ThresholdsConfig:
    made = [Threshold(value=value, color=color) for value, color in steps]
    return ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(made)


def _own_unit(unit: str) -> list[DynamicConfigValue]:
    return [DynamicConfigValue(id_val="unit", value=unit)]


def _own_thresholds(*steps: tuple[float | None, str]) -> list[DynamicConfigValue]:
    return [
        DynamicConfigValue(id_val="thresholds", value=_steps(*steps).build()),
        DynamicConfigValue(
            id_val="custom.thresholdsStyle", value={"mode": str(common.GraphThresholdsStyleMode.DASHED)}
        ),
    ]


def _runbook(alert: str) -> DashboardLink:
    """Runbooks are named for the alerts that lead to them."""
    link = DashboardLink(f"Runbook: {alert}").type(DashboardLinkType.LINK)
    return link.url(f"${{runbooks}}/{alert}.md").target_blank(True)
