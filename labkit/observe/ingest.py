"""
How log lines come into OpenSearch: its index, the shipper's sink, and the pipeline that parses lines.

The pipeline is made of `infra/opensearch/lines.json` and the patterns that live once.  What it makes of a line is what
`log_lines.line_reader` makes of it; a test holds them together.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from labkit._http import request
from labkit.errors import RequestFailed
from labkit.observe.grok import load_patterns, prefixed
from labkit.observe.log_lines import FORMATS, LEVELS
from labkit.settings import files_root

if TYPE_CHECKING:
    from labkit.observe.shipper import Placed

__all__ = ["INDEX", "PIPELINE", "OpenSearchSink", "line_pipeline", "prepare_index", "reason_of"]

INDEX, PIPELINE = "logs-labkit", "labkit-lines"
_HOW = "Is OpenSearch running? See `labkit status` and `labkit logs opensearch`."
# Statuses: of a line that is there already; of one that will never fit; of a missing pipeline or index.
_IS_THERE, _BAD_LINE, _MAY_BE_EMPTY = 409, 400, (400, 404)


def line_pipeline() -> dict[str, Any]:
    """
    The body of `PUT _ingest/pipeline/labkit-lines`.

    It reads `message` and writes `time_ns`, `level`, `message` and `fields`; a line of neither format passes unchanged.

    Raises:
        ConfigInvalid: the patterns have mistakes; all are listed.
    """
    infra = files_root() / "infra"
    pipeline: dict[str, Any] = json.loads((infra / "opensearch" / "lines.json").read_text(encoding="utf-8"))
    patterns = load_patterns(infra / "logs" / "patterns")
    # An int of OpenSearch has 32 bits: an answer of 3 GB would make its line one that no format fits.
    definitions = {name: prefixed(text, "fields.").replace(":int}", ":long}") for name, text in patterns.items()}
    for processor in pipeline["processors"]:
        if grok := processor.get("grok"):
            grok["pattern_definitions"] = definitions
            # Not ^ and $: these are the ends of a line in Oniguruma, and a message could have several.
            grok["patterns"] = [rf"\A%{{{name}}}\z" for name in FORMATS]
        if script := processor.get("script"):
            script["source"] = (infra / "opensearch" / "lines.painless").read_text(encoding="utf-8")
            script["params"]["levels"] = LEVELS
    return pipeline


def prepare_index(url: str, *, timeout_s: float = 30) -> None:
    """
    Tell the OpenSearch at *url* how log lines are stored and parsed, and make their index; twice is fine.

    What it is told is infra/opensearch/template.json and `ingest.line_pipeline()`.

    Raises:
        RequestFailed: it does not answer or refuses.
    """
    base = url.rstrip("/")
    template = json.loads((files_root() / "infra" / "opensearch" / "template.json").read_text(encoding="utf-8"))
    for path, body in ((f"_index_template/{PIPELINE}", template), (f"_ingest/pipeline/{PIPELINE}", line_pipeline())):
        request("PUT", f"{base}/{path}", json=body, timeout_s=timeout_s, how=_HOW)
    if request("HEAD", f"{base}/{INDEX}", timeout_s=timeout_s, how=_HOW, ok=(404,)).status_code == 404:
        # 400: somebody else made it in between.
        request("PUT", f"{base}/{INDEX}", timeout_s=timeout_s, how=_HOW, ok=(400,))


class OpenSearchSink:
    """
    OpenSearch as the shipper's sink: `_bulk`, with ids made of file and position, so that sending twice adds nothing.

    A line that is `raw` goes through the pipeline that looks for the formats.

    Args:
        url: as in `http://127.0.0.1:9200`.
    """

    def __init__(self, url: str) -> None:
        self._url, self._prepared = url.rstrip("/"), False

    def send(self, lines: Sequence[Placed]) -> None:
        """
        Keep *lines*.

        Raises:
            RequestFailed: OpenSearch does not say that it keeps each of them.
        """
        if self._prepared:
            try:
                self._bulk(lines)
            except RequestFailed as error:
                self._prepared = False
                if error.status not in _MAY_BE_EMPTY:
                    raise
            else:
                return
        # The first time; or it may have lost what it was told, because it was emptied or is another one.
        prepare_index(self._url)
        self._bulk(lines)
        self._prepared = True

    def _bulk(self, lines: Sequence[Placed]) -> None:
        body = "".join(f"{_action(placed)}\n{_document(placed)}\n" for placed in lines)
        url, headers = f"{self._url}/{INDEX}/_bulk", {"Content-Type": "application/x-ndjson"}
        answer = request("POST", url, data=body.encode(), headers=headers, timeout_s=60).json()
        said = [item["create"] for item in answer["items"]] if answer["errors"] else []
        bad = [item for item in said if item["status"] >= 400 and item["status"] != _IS_THERE]
        if bad:
            # One that may pass the next time decides: the shipper gives a batch up only when none can.
            worst = max(bad, key=lambda item: item["status"] != _BAD_LINE)
            reason = f"{len(bad)} of {len(lines)} lines were not kept: {reason_of(worst)}"
            raise RequestFailed("POST", url, status=worst["status"], reason=reason)


def reason_of(answer: dict[str, Any]) -> str:
    """Why OpenSearch refused, in its words, the innermost last."""
    cause, words = answer["error"], []
    while cause:
        words.append(str(cause.get("reason") or cause["type"]))
        cause = cause.get("caused_by")
    return ": ".join(dict.fromkeys(words))[:300]


def _action(placed: Placed) -> str:
    pipeline = {"pipeline": PIPELINE} if placed.line.raw else {}
    return json.dumps({"create": {"_id": f"{placed.source}:{placed.position}"} | pipeline})


def _document(placed: Placed) -> str:
    line = placed.line
    found = {
        "time_ns": line.time_ns or time.time_ns(),
        "service": line.service,
        "level": line.level,
        "message": line.message,
        "trace_id": line.trace_id,
        "span_id": line.span_id,
        "fields": line.fields,
        "position": placed.position,
    }
    return json.dumps(found, ensure_ascii=False, default=str).encode(errors="replace").decode()
