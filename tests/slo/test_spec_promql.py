"""As much PromQL as specifications need, beside the parser of Prometheus itself."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from labkit.slo.spec_checks import count_problems, divided, histogram_in, level_problems, unmatched
from labkit.slo.spec_promql import EVERY, UNKNOWN, NotPromql, counting, parse, walk

VALID = """
up
up{job="x", y!~"a|b}"}
{__name__=~"a.*"}
sum(rate(a[5m])) by (job)
sum by (job, le) (rate(a_bucket{le="1"}[5m]))
sum without (x) (a) / on (y) group_left (z) b
a / ignoring (x) b
a and b or c unless d
-a ^ 2 ^ -3
1 - (sum(a) or 0 * sum(b)) / sum(b)
histogram_quantile(0.95, sum by (le) (rate(x_bucket[5m]))) * 1000
max_over_time((sum(rate(a[1m])) > bool 0)[1h:5m] offset 1d)
count_over_time(a[1h:])
time() - max(ts @ end())
a @ 1609746000 offset -5m
topk(3, sum by (x) (a))
count_values("v", a)
label_replace(up, "a", "$1", "b", "(.*)")
vector(1) > bool 0.5e-3
.5 + 0x1F + Inf + NaN
a == b # and a comment
sum(rate(a{b='it\\'s'}[1h30m]))
scalar(a) * 2
absent(up{job="x"})
quantile by (x) (0.5, a)
a:b:rate5m
""".strip().splitlines()

INVALID = """
sum(rate(a[5m])
sum(rate(a[5m])))
a{x="1
a +
rate(a[])
a b
sum by job (a)
a$b
(a
a}
a[5m
sum(a b)
* a
a offset
a by (x)
a / on b
""".strip().splitlines()


def test_the_parser_of_prometheus_agrees(program: Callable[[str], Path], tmp_path: Path) -> None:
    """`promtool check rules` takes each of the valid queries and none of the invalid, and so do we."""

    def refused(queries: list[str]) -> set[str]:
        rules = [{"record": f"q{number}", "expr": query} for number, query in enumerate(queries)]
        path = tmp_path / "rules.yml"
        path.write_text(yaml.safe_dump({"groups": [{"name": "q", "rules": rules}]}))
        argv = [program("promtool"), "check", "rules", path]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
        return {queries[int(number)] for number in re.findall(r'rule \d+, "q(\d+)": could not parse', done.stderr)}

    assert refused(VALID) == set()
    assert refused(INVALID) == set(INVALID)
    for query in VALID:
        parse(query)
    for query in INVALID:
        with pytest.raises(NotPromql):
            parse(query)


def test_a_mistake_is_pointed_at() -> None:
    """The message has the character, the query and a caret."""
    with pytest.raises(NotPromql) as caught:
        parse("sum(rate(a[5m])")

    assert caught.value.position == 4
    assert str(caught.value) == "not PromQL at character 4: `(` is never closed\nsum(rate(a[5m])\n   ^"


PIECES = st.sampled_from([*"()[]{}+-*/^,@:=# é", "a", "sum", "by", "on", "or", "5m", "1", '"x"', "$window", "offset"])


@given(st.lists(PIECES, max_size=30).map("".join))
def test_no_text_breaks_the_parser(query: str) -> None:
    """Whatever stands there: a tree whose parts lie inside the text, or the one error."""
    try:
        tree = parse(query)
    except NotPromql:
        return
    assert all(0 <= node.start <= node.end <= len(query) for node in walk(tree))


@pytest.mark.parametrize(
    ("before", "after"), [("(", ")"), ("-", ""), ("sum(", ")"), ("", "+a"), ("", "^a"), ("a-(", ")")]
)
def test_endless_nesting_is_refused_before_it_fills_the_stack(before: str, after: str) -> None:
    """What is deeper than anyone nests is an error; what is deep can be parsed and walked."""
    deep = f"{before * 45}a{after * 45}"

    assert sum(1 for _ in walk(parse(deep))) > 45
    assert count_problems(deep)[0].startswith("counts nothing over time")
    with pytest.raises(NotPromql, match="nested too deeply"):
        parse(f"{before * 3000}a{after * 3000}")


@pytest.mark.parametrize(
    ("query", "labels"),
    [
        ("sum(a)", frozenset()),
        ("sum by (x, y) (a)", frozenset({"x", "y"})),
        ("sum without (x) (a)", EVERY),
        ("rate(a[5m])", EVERY),
        ("sum(a) / sum by (x) (b)", UNKNOWN),
        ("sum by (x) (a) / on (x) sum by (x, y) (b)", frozenset({"x"})),
        ("sum by (x, y) (a) / ignoring (y) sum by (x) (b)", frozenset({"x"})),
        ("sum by (x) (a) * 100", frozenset({"x"})),
        ("histogram_quantile(0.9, sum by (le, x) (rate(a[5m])))", frozenset({"x"})),
        ("topk(1, sum by (x) (a))", frozenset({"x"})),
        ("scalar(a) + 1", frozenset()),
        ("sum(a) or on() vector(0)", frozenset()),
        ('label_replace(sum(a), "x", "1", "", "")', UNKNOWN),
        ("(sum(a))", frozenset()),
        ("hour()", frozenset()),
    ],
)
def test_the_labels_of_a_result_are_known_from_the_text(query: str, labels: object) -> None:
    """Aggregations, matching and functions are followed; what depends on the series is unknown."""
    assert parse(query).labels == labels


@pytest.mark.parametrize(
    ("query", "counts"),
    [
        ("sum(rate(a[$window]))", "sum(increase(a[$window]))"),
        ("2 * sum(rate(a[$window])) + -rate(b[$window])", "2 * sum(increase(a[$window])) + -increase(b[$window])"),
        ("clamp_max(sum(rate(a[$window])), 5)", "clamp_max(sum(rate(a[$window])), 5)"),
        ("sum(rate(a[$window])) * sum(rate(b[$window]))", "sum(rate(a[$window])) * sum(rate(b[$window]))"),
        ("sum_over_time(sum(rate(a[1m]))[$window:1m])", "sum_over_time(sum(rate(a[1m]))[$window:1m])"),
        ("sum(rate(a[5m]))", "sum(rate(a[5m]))"),
    ],
)
def test_sums_of_rates_become_sums_of_events_and_nothing_else_does(query: str, counts: str) -> None:
    """Only what is proportional to the rate may be multiplied by the window."""
    assert counting(query) == counts


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("sum(increase(a[5m]))", "write [$window] in place of [5m]"),
        ("sum(a)", "counts nothing over time"),
        ("5", "counts nothing over time"),
        ("sum(increase(a[$window])) + sum(increase(b[1h]))", "two lengths of time; write [$window] in place of [1h]"),
        ("clamp_max(sum(rate(a[$window])), 5)", "`rate` gives events per second"),
        ("sum(irate(a[$window]))", "`irate` gives events per second"),
        ("increase(a[$window])", "one value for each series"),
        ("sum by (x) (increase(a[$window]))", "one value for each x"),
        ("sum(increase(a[{{.window}}]))", "has the placeholder {{.window}}; the one for the length of time is $window"),
        ("sum(increase(a[$__rate_interval]))", "has the placeholder $__rate_interval"),
        ("sum(increase(a[$window])", "never closed"),
        ("sum(increase(a[$windows]))", "`[$windows]` is no length of time; write [$window]"),
        ("sum(increase(a[2$window]))", "`[2$window]` is no length of time; write [$window]"),
    ],
)
def test_a_query_that_cannot_count_says_why(query: str, said: str) -> None:
    """One sentence for each mistake, with the fix."""
    [problem] = count_problems(query)

    assert said in problem


def test_a_level_inside_a_count_of_slices_has_a_length_of_its_own() -> None:
    """A fixed range below a subquery over the window is no mistake, nor is a dollar in a string."""
    assert count_problems('sum(label_replace(increase(a[$window]), "b", "${1}", "c", "(.*)"))') == []
    assert count_problems("sum_over_time((sum(rate(a[1m])) > bool 5)[$window:1m])") == []


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ("sum by (job) (increase(a[$window]))", "keeps the label job and `total` keeps none"),
        ("increase(a[$window])", "keeps every label and `total` keeps none"),
        ("sum by (x, y) (increase(a[$window]))", "keeps the labels x, y and `total` keeps none"),
    ],
)
def test_a_numerator_whose_labels_never_match_is_named(part: str, said: str) -> None:
    """Prometheus would return nothing, for ever, without an error."""
    problem = unmatched(part, "sum(increase(b[$window]))")

    assert problem is not None
    assert said in problem
    assert "the ratio has no value" in problem


def test_labels_that_match_or_cannot_be_told_are_no_problem() -> None:
    """Equal labels on both sides, labels that a function makes, and text that is no PromQL (said elsewhere)."""
    by_job = "sum by (job) (increase(a[$window]))"

    assert unmatched(by_job, by_job) is None
    assert unmatched('label_replace(sum(a), "x", "1", "", "")', "sum(b)") is None
    assert unmatched("sum(", "sum(b)") is None


@pytest.mark.parametrize("query", ["time() - max(ts)", "sum(rate(a[2m]))", "max(age_seconds)"])
def test_a_level_needs_no_placeholder(query: str) -> None:
    """It is measured in each slice by itself."""
    assert level_problems(query) == []


@pytest.mark.parametrize(("query", "said"), [("rate(a[2m])", "sum(…)"), ("sum(a)[1h:]", "not a number")])
def test_what_is_no_level_says_why(query: str, said: str) -> None:
    """Many values, or a range."""
    assert said in level_problems(query)[0]


def test_a_division_is_taken_apart() -> None:
    """`good / total` and `1 - bad / total`, as ratio and as percentage."""
    good, bad, total = "sum(increase(g[$window]))", "sum(increase(b[$window]))", "sum(increase(t[$window]))"
    queries = (
        f"{good} / {total}",
        f"100 * ({good}) / {total}",
        f"({good} / {total}) * 100",
        f"1 - {bad} / ({total})",
        f"100 - ({bad} / {total} * 100)",
        f"(1 - {bad} / {total}) * 100",
    )
    parts = [divided(query) for query in queries]

    assert [(part.good or part.bad, part.total) for part in parts] == 3 * [(good, total)] + 3 * [(bad, total)]
    assert [part.good is not None for part in parts] == [True, True, True, False, False, False]
    assert [part.percent for part in parts] == [False, True, True, False, True, True]


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("sum(a)", "must be one division of counts"),
        ("2 - sum(a) / sum(b)", "must be one division of counts"),
        ("100 - sum(a) / sum(b)", "must be one division of counts"),
        ("histogram_quantile(0.9, a)", "for a latency write `target_type: latency`"),
        ("sum(a", "never closed"),
    ],
)
def test_what_is_no_division_says_what_is_wanted(query: str, said: str) -> None:
    """The two forms are named."""
    assert said in str(divided(query))


def test_a_histogram_is_its_name_and_matchers() -> None:
    """Braces in strings, a comma at the end and no braces at all."""
    assert histogram_in('w{a="}", b=~"x,y",}') == ("w", 'a="}", b=~"x,y"')
    assert histogram_in("w") == ("w", "")
    assert histogram_in('w{path="/le=1"}') == ("w", 'path="/le=1"')


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("w_bucket", "write w without _bucket"),
        ('w{le="1"}', "must not choose buckets"),
        ("sum(rate(w_count[5m]))", "must be a histogram's name and matchers; write w"),
        (
            'histogram_quantile(0.99, sum by (le) (rate(w_bucket{x="1"}[5m]))) * 1000',
            '`target: 99%`, `query: w{x="1"}`',
        ),
        ("w[5m]", "write w"),
        ("1 + 1", "must be the name of a histogram"),
        ("", "not PromQL"),
    ],
)
def test_what_is_no_histogram_says_what_to_write(query: str, said: str) -> None:
    """A quantile is turned into the share that has a budget."""
    assert said in str(histogram_in(query))
