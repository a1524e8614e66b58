"""Every panel of the board answers: its queries run on a real Prometheus, with the project's configuration and
rules, over what a real run exported."""

from __future__ import annotations

import json
import re
import shutil
import time
import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from fleet.kafka import free_port
from fleet.services import Process, prometheus_home, prometheus_part
from monitoring.dashboards.__main__ import boards
from monitoring.exporter import Exporter, MetricsServer
from streams.contracts.dead_letter import DeadLetter
from tests.conftest import QuickRun

pytestmark = pytest.mark.slow
PANELS = [p for text in boards().values() for p in json.loads(text)["panels"] if p["type"] != "row"]
VARIABLES = {"$model_version": ".+", "$__rate_interval": "1m"}


class Replayed(Collector):
    """The metrics that a run left, growing from nothing to all of it: counters must be seen to grow."""

    def __init__(self, text: str, registry: CollectorRegistry) -> None:
        """Takes the place of the instruments of the same names."""
        told = text_string_to_metric_families(text)
        self.families = [f for f in told if f.samples and not f.name.endswith("_created")]
        self.share = 0.0
        held = registry._names_to_collectors
        for collector in {held[f.name] for f in self.families}:
            registry.unregister(collector)
        registry.register(self)

    def describe(self) -> Iterable[Metric]:
        return [Metric(f.name, f.documentation, f.type) for f in self.families]

    def collect(self) -> Iterable[Metric]:
        for family in self.families:
            told = Metric(family.name, family.documentation, family.type)
            for name, labels, value, *_ in family.samples:
                told.add_sample(name, labels, value * (1.0 if family.type == "gauge" else self.share))
            yield told


@pytest.fixture(scope="module")
def prometheus(quick_run: QuickRun, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that has scraped a run; its URL."""
    if shutil.which("prometheus") is None:
        pytest.skip("prometheus is not installed (Debian: prometheus)")
    folder, broker = tmp_path_factory.mktemp("prometheus"), Exporter()
    replayed = Replayed((quick_run.out / "metrics.prom").read_text(), broker.registry)
    # A broker's lag and refused records are what an embedded run does not have.
    with MetricsServer(broker) as server:
        targets = [server.url.split("/")[2]]
        (part,) = prometheus_part(folder, free_port(), targets)
        configuration = prometheus_home(folder / "prometheus", targets) / "prometheus.yml"
        text = configuration.read_text()
        configuration.write_text(text.replace("interval: 15s", "interval: 1s"))
        process = Process(part, folder)
        try:
            process.wait_ready(60)
            for step in range(3):
                replayed.share = step / 2
                broker.places([("fleetwheel", "fleet.events", 0, 50 * step, 200 + step)])
                broker.observe(DeadLetter("fleet.events", 0, step, 0, "malformed", "x"))
                time.sleep(4.0)
            yield part.url
        finally:
            process.stop()


def asked(url: str, expr: str) -> list[dict[str, Any]]:
    for name, value in VARIABLES.items():
        expr = expr.replace(name, value)
    assert "$" not in expr, "a variable that is not filled in"
    query = urllib.parse.urlencode({"query": expr})
    with urllib.request.urlopen(f"{url}/api/v1/query?{query}", timeout=30) as answer:
        told = json.load(answer)
    assert told["status"] == "success"
    found: list[dict[str, Any]] = told["data"]["result"]
    return found


@pytest.mark.parametrize("panel", PANELS, ids=lambda p: p["title"])
def test_every_query_of_a_panel_has_an_answer(prometheus: str, panel: dict[str, Any]) -> None:
    for target in panel["targets"]:
        ends, found = time.monotonic() + 20, asked(prometheus, target["expr"])
        while not found and time.monotonic() < ends:
            time.sleep(1.0)
            found = asked(prometheus, target["expr"])
        assert found, target["expr"]
        named = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
        assert all(named <= set(series["metric"]) for series in found), "the legend names labels that are there"


def test_the_rates_are_those_of_the_run(prometheus: str) -> None:
    """Recorded rates lie within their limits, and their limits are finite."""
    rate = "model_version:fleetwheel_disengagements_per_kilometer"
    by = {name: asked(prometheus, f"{rate}:{name}") for name in ("rate1d", "lower95_1d", "upper95_1d")}
    low, mid, high = (
        {s["metric"]["model_version"]: float(s["value"][1]) for s in by[name]}
        for name in ("lower95_1d", "rate1d", "upper95_1d")
    )
    assert set(low) == set(mid) == set(high) != set()
    assert all(0 <= low[v] <= mid[v] < high[v] for v in mid)
