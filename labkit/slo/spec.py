"""
Specifications of objectives: read, checked whole, and written.

    load_specs("slos.yaml").slos          every objective of a file, or every mistake of it

Three formats are understood: our own (docs/slo-spec.md), OpenSLO v1 and Sloth's `prometheus/v1`; a file says itself
which it is.  The JSON Schema of our own is `labkit/slo/schema.json`.
"""

from __future__ import annotations

import difflib
import json
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from labkit._yaml import Place, parse_model, read_text
from labkit.slo.openslo import dump_openslo, read_openslo
from labkit.slo.policies import POLICIES
from labkit.slo.sloth import read_sloth
from labkit.slo.spec_checks import mappings_in, names_in, repeated
from labkit.slo.spec_file import SpecFile
from labkit.slo.spec_form import SpecForm

__all__ = ["SpecFile", "dump_openslo", "json_schema", "load_specs", "parse_specs", "read_openslo", "read_sloth"]

_OPENSLO = re.compile(r"""^(\s*-\s+)?apiVersion:\s*["']?openslo/""", re.MULTILINE)
_SLOTH = re.compile(r"""^version:\s*["']?prometheus/""", re.MULTILINE)


def load_specs(path: Path | str) -> SpecFile:
    """
    Read the specification file at *path*.

    Raises:
        ConfigInvalid: every mistake of the file, with line, column, the bad value and what is allowed.
        FileNotFoundError: there is no such file.
    """
    return parse_specs(read_text(Path(path)), str(path))


def parse_specs(text: str, source: str = "the specification") -> SpecFile:
    '''
    Read the text of a specification file; *source* is what messages call it.

    Raises:
        ConfigInvalid: as for `load_specs`.

    >>> spec = parse_specs("""
    ... slos:
    ... - name: checkout-availability
    ...   target: 99.9
    ...   window: 30d
    ...   sli:
    ...     target_type: availability
    ...     bad: sum(increase(http_requests_total{status=~"5.."}[$window]))
    ...     total: sum(increase(http_requests_total[$window]))
    ... """)
    >>> spec.slos[0].objective
    Fraction(999, 1000)
    '''
    if _OPENSLO.search(text):
        return read_openslo(text, source)
    if _SLOTH.search(text):
        return read_sloth(text, source)
    raw: dict[str, Any] = {}

    def checks(data: Any) -> Iterator[tuple[Place, str]]:
        raw.update(data if isinstance(data, dict) else {})
        yield from _across(data)

    form = parse_model(SpecForm, text, source, checks=checks)
    return SpecFile(
        source=source,
        slos=tuple(each.slo() for each in form.slos),
        policies={each.name: each.policy() for each in form.policies},
        release=raw.get("release"),
        journeys=tuple(raw.get("journeys") or ()),
    )


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of our own format; what it cannot say, `parse_specs` checks besides."""
    schema = SpecForm.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "labkit SLO specification"}


def _across(data: Any) -> Iterator[tuple[Place, str]]:
    """What is wrong between the parts of a file, which may be wrong themselves."""
    own = [name for _, name in names_in(data, "policies")]
    yield from repeated(data, "slos")
    yield from repeated(data, "policies")
    yield from repeated(data, "journeys")
    slos = [name for _, name in names_in(data, "slos")]
    yield from ((place, _unknown("SLO", name, slos)) for place, name in _slos_named(data) if name not in slos)
    for index, name in names_in(data, "policies"):
        if name in POLICIES:
            yield ("policies", index, "name"), f"{name!r} is a built-in policy; choose another name"
    for index, slo in mappings_in(data, "slos"):
        policy = slo.get("policy")
        if isinstance(policy, str) and policy not in {*own, *POLICIES}:
            yield ("slos", index, "policy"), _unknown("policy", policy, [*own, *POLICIES])
        sli, budgeting = slo.get("sli"), slo.get("budgeting", "occurrences")
        kind = sli.get("target_type") if isinstance(sli, dict) else None
        method = budgeting.get("method") if isinstance(budgeting, dict) else budgeting
        if kind in ("throughput", "freshness") and method != "occurrences":
            yield ("slos", index, "budgeting"), f"must be occurrences for {kind}, which counts slices of time already"


def _slos_named(data: Any) -> Iterator[tuple[Place, str]]:
    """Every place outside `slos` that names an objective, and the name."""
    release = data.get("release") if isinstance(data, dict) else None
    listed = release.get("slos") if isinstance(release, dict) else None
    places: list[tuple[Place, Any]] = [(("release", "slos"), listed)]
    for index, journey in mappings_in(data, "journeys"):
        places.append((("journeys", index, "steps"), journey.get("steps")))
        if journey.get("measured"):
            yield ("journeys", index, "measured"), str(journey["measured"])
    for place, names in places:
        for index, name in enumerate(names if isinstance(names, list) else ()):
            if isinstance(name, str):
                yield (*place, index), name


def _unknown(kind: str, name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean `{close[0]}`?" if close else "."
    return f"no {kind} is called {name!r}{hint} Known: {', '.join(dict.fromkeys(known))}"


if __name__ == "__main__":
    sys.stdout.write(f"{json.dumps(json_schema(), indent=2, ensure_ascii=False)}\n")
