"""Bench rows of observing: the shop with traces, ids and exemplars and without, in turns, on the same processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import requests

from labkit.observe.overhead import cpu_of, measure_overhead
from tests.shop.otlp_receiver import Receiver
from tests.shop.shop_stack import REPLICAS, ShopStack

Row = dict[str, Any]


def rows(folder: Path, pairs: int = 40, each: int = 100) -> list[Row]:
    """What one look at a product costs more with tracing than without; the name has the interval of 95 %."""
    receiver = Receiver()
    stack = ShopStack(folder, otlp_url=receiver.url)
    try:
        stack.start()
        admin, url, session = stack.admin(), f"{stack.url('gateway')}/products/3", requests.Session()
        frame = measure_overhead(
            work=lambda: session.get(url, timeout=5).raise_for_status(),
            switch=lambda on: admin.set_flag("tracing", on),
            cpu_s=lambda: cpu_of(stack.processes[name].pid for name in REPLICAS),
            pairs=pairs,
            requests=each,
        )
    finally:
        stack.stop()
        receiver.close()
    return [
        {
            "name": f"tracing a request, {name}: {row['low']:+.2f} to {row['high']:+.2f} ms",
            "value": round(float(row["difference"]), 3),
            "unit": "ms",
            "rival": "without",
            "rival_value": round(float(row["off"]), 3),
            "ratio": round(float(row["on"] / row["off"]), 3),
            "goal": None,
            "met": None,
        }
        for name, row in frame.iterrows()
    ]
