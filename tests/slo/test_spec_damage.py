"""Files with one part broken, in every format: they load, or every mistake is said; nothing else happens."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from labkit.errors import ConfigInvalid
from labkit.slo.spec import dump_openslo, parse_specs

DOCS = (Path(__file__).parents[2] / "docs" / "slo-spec.md").read_text(encoding="utf-8")
[OWN] = re.findall(r"^```yaml\n(.*?)^```$", DOCS, re.MULTILINE | re.DOTALL)
SLOTH = """
version: prometheus/v1
service: shop
slos:
- name: a
  objective: 99.9
  labels: {tier: "1"}
  sli: {events: {error_query: "sum(rate(e[{{.window}}]))", total_query: "sum(rate(t[{{.window}}]))"}}
  alerting: {name: A, annotations: {runbook: r}, page_alert: {disable: true}}
"""
OPENSLO = dump_openslo(parse_specs(OWN).slos[:4], parse_specs(OWN).policies)
FILES = [list(yaml.safe_load_all(text)) for text in (OWN, SLOTH, OPENSLO)]
DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
NUMBERS = (0, 1, -1, 100, 99.9, float("nan"), float("inf"), 10**30)
WORDS = ("", "0", "0d", "1y", "30d", "99.9%", "$window", "sum(", "a", "é" * 2000, "openslo/v1", "workbook")
VALUES = st.sampled_from([*NUMBERS, *WORDS, None, True, [], {}, [[]], {"a": {"b": []}}])


def places(node: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of everything in a file."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        yield (*before, key)
        yield from places(value, (*before, key))


@st.composite
def damaged(draw: st.DrawFn) -> str:
    """A file in which one value was replaced, one key was taken away or one was added."""
    documents = copy.deepcopy(draw(st.sampled_from(FILES)))
    *parts, last = draw(st.sampled_from(list(places(documents))))
    place = documents
    for part in parts:
        place = place[part]
    match draw(st.sampled_from(["replace", "replace", "remove", "add"])):
        case "replace":
            place[last] = draw(VALUES)
        case "remove":
            del place[last]
        case _ if isinstance(place, dict):
            place["added"] = draw(VALUES)
        case _:
            place.append(draw(VALUES))
    return str(yaml.dump_all(documents, Dumper=DUMPER))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(damaged())
def test_a_damaged_file_loads_or_is_refused(text: str) -> None:
    """No other error, and what loads can be computed with."""
    try:
        spec = parse_specs(text, "x.yaml")
    except ConfigInvalid:
        return
    assert all(0 < slo.objective < 1 for slo in spec.slos)
    assert all("1h" in slo.sli.error_ratio("1h") for slo in spec.slos)


@pytest.mark.parametrize("documents", FILES)
def test_the_files_are_whole_before_they_are_damaged(documents: list[Any]) -> None:
    """Each format, so that refusals come from the damage."""
    assert parse_specs(yaml.safe_dump_all(documents)).slos
