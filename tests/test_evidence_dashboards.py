"""Panels that a deployment leaves blank, by metric name and label."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.core.errors import ConfigurationError
from fixtures.evidence.dashboards import Panel, exposed, in_report, panels
from fixtures.provide import dashboards_command as command

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_httpserver import HTTPServer

PAGE = """\
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 0.0
# TYPE vllm:prefix_cache_hits counter
vllm:prefix_cache_hits_total{engine="0",model_name="m"} 7.0
# TYPE vllm:time_to_first_token_seconds histogram
vllm:time_to_first_token_seconds_bucket{le="0.1",model_name="m"} 1.0
vllm:time_to_first_token_seconds_bucket{le="+Inf",model_name="m"} 1.0
vllm:time_to_first_token_seconds_sum{model_name="m"} 0.05
vllm:time_to_first_token_seconds_count{model_name="m"} 1.0
"""


def dashboard(*queries: str) -> dict[str, Any]:
    return {"panels": [{"title": "one", "targets": [{"expr": query} for query in queries]}]}


def judged(*queries: str) -> Panel:
    (found,) = panels(json.dumps(dashboard(*queries)), exposed([PAGE]))
    return found


@pytest.mark.parametrize(
    "query",
    [
        "vllm:num_requests_running",
        'vllm:num_requests_running{model_name="$model_name"}',
        'vllm:num_requests_running{model_name=~"${model:regex}", engine="0"}',
        'vllm:num_requests_running{namespace="n", pod=~"p.*"}',
        'vllm:num_requests_running{engine!="1"}',
        'vllm:num_requests_running{engine=~"0|1"}',
        'vllm:num_requests_running{other=""}',
        "histogram_quantile(0.9, sum by (le) (rate(vllm:time_to_first_token_seconds_bucket[$__rate_interval])))",
        "max_over_time(vllm:num_requests_running[1h:$__interval])",
        "increase(vllm:prefix_cache_hits_total[${window}])",
        "vllm:gone or vllm:num_requests_running",
        "vllm:num_requests_running unless vllm:gone",
        "absent(vllm:gone)",
        '{__name__="vllm:num_requests_running"}',
        "vector(1)",
        "100 * -(vllm:num_requests_running)",
    ],
)
def test_what_is_exposed_is_shown(query: str) -> None:
    found = judged(query)
    assert (found.blank, found.queries[0].missing, found.queries[0].problem) == (False, (), None)


@pytest.mark.parametrize(
    ("query", "missing"),
    [
        ("rate(vllm:gpu_prefix_cache_hits_total[5m])", "vllm:gpu_prefix_cache_hits_total is not exposed"),
        ("vllm:num_requests_running / lmcache:gone", "lmcache:gone is not exposed"),
        ("vllm:gone or vllm:gone_too", "vllm:gone is not exposed"),
        ("vllm:gone unless vllm:num_requests_running", "vllm:gone is not exposed"),
        ('{__name__="router_gone"}', "router_gone is not exposed"),
        (
            'vllm:num_requests_running{engine="1"}',
            "vllm:num_requests_running has no series with engine='1' (engine is '0')",
        ),
        (
            'vllm:num_requests_running{server=~".+"}',
            "vllm:num_requests_running has no series with server=~'.+' (server is '')",
        ),
        (
            'vllm:num_requests_running{model_name!~"m|n"}',
            "vllm:num_requests_running has no series with model_name!~'m|n' (model_name is 'm')",
        ),
    ],
)
def test_what_is_not_exposed_is_named(query: str, missing: str) -> None:
    found = judged(query)
    assert found.blank
    assert found.queries[0].missing[0] == missing


def test_a_panel_with_one_query_that_works_is_partly_blank() -> None:
    found = judged("vllm:gone", "vllm:num_requests_running")
    assert (found.blank, found.partly_blank) == (False, True)


def test_metrics_of_others_and_queries_that_cannot_be_read_are_no_fault() -> None:
    found = judged("DCGM_FI_DEV_GPU_UTIL", "vllm:num_requests_running{")
    assert (found.blank, found.partly_blank) == (False, False)
    assert found.queries[0].foreign == ("DCGM_FI_DEV_GPU_UTIL",)
    assert (found.queries[1].problem or "").startswith("cannot be read")


def test_what_a_report_says_of_a_dashboard() -> None:
    queries = ("vllm:gone", "vllm:num_requests_running", "DCGM_FI_DEV_GPU_UTIL")
    found = panels(
        json.dumps({"panels": [*dashboard(*queries)["panels"], *dashboard(queries[0])["panels"]]}), exposed([PAGE])
    )
    assert in_report(found) == {
        "panels": 2,
        "blank": [{"title": "one", "missing": ["vllm:gone is not exposed"]}],
        "partly_blank": [{"title": "one", "missing": ["vllm:gone is not exposed"]}],
        "not_judged": [
            {"title": "one", "not_judged": ["DCGM_FI_DEV_GPU_UTIL is of another exporter, and was not judged"]}
        ],
    }


def test_panels_in_rows_and_texts_without_queries() -> None:
    found = {
        "dashboard": {
            "panels": [
                {"type": "row", "title": "r", "panels": dashboard("vllm:gone")["panels"]},
                {"type": "text", "title": "words"},
                {"id": 7, "targets": [{"expr": "vllm:gone"}, {"refId": "B"}]},
            ]
        }
    }
    assert [one.title for one in panels(json.dumps(found), {})] == ["one", "panel 7"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"panels": 1}', '{"dashboard": null}'])
def test_something_else_is_no_dashboard(text: str) -> None:
    with pytest.raises(ConfigurationError, match="not the JSON of a Grafana dashboard"):
        panels(text, {})


def test_the_command(tmp_path: Path, httpserver: HTTPServer, capsys: pytest.CaptureFixture[str]) -> None:
    httpserver.expect_request("/metrics").respond_with_data(PAGE)
    other = tmp_path / "router.txt"
    other.write_text("router_cpu_usage_percent 1.0\n")
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    good.write_text(json.dumps(dashboard("vllm:num_requests_running + router_cpu_usage_percent")))
    bad.write_text(json.dumps(dashboard("vllm:gone")))
    pages = ["--metrics", httpserver.url_for("/metrics"), "--metrics", str(other)]
    assert command.main([str(good), *pages]) == 0
    assert "1 panels with queries, 0 blank, 0 partly blank" in capsys.readouterr().out
    assert command.main([str(good), str(bad), *pages]) == 1
    assert "BLANK  one: vllm:gone is not exposed" in capsys.readouterr().out
    assert command.main([str(other), *pages]) == 2
    assert "not the JSON" in capsys.readouterr().err
    assert command.main([str(good), "--metrics", httpserver.url_for("/nothing")]) == 2
