"""
Names, buckets and labels of the shop's metrics.

The `version` of a service is a label of `shop_build_info` only.  On every series it would start new
counters at each deploy, and `rate` loses what happens before a counter's first scrape.  To split by version:

    sum by (service, version) (
      rate(http_requests_total[1m]) * on (service, instance) group_left (version) shop_build_info
    )
"""

from __future__ import annotations

__all__ = ["DURATION_BUCKETS_S"]

# Few, and where objectives are: every bound is a series per endpoint and replica.
DURATION_BUCKETS_S: tuple[float, ...] = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
