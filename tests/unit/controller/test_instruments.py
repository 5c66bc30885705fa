"""Names and labels of the operator's metrics: dashboards and alerts are written against them."""

from prometheus_client import generate_latest

from paceline.controller.instruments import Instruments

NAMES = {
    "paceline_operator_api_requests_total": "counter",
    "paceline_operator_conflicts_total": "counter",
    "paceline_operator_decision_tick_seconds": "histogram",
    "paceline_operator_events_dropped_total": "counter",
    "paceline_operator_leader": "gauge",
    "paceline_operator_plan_seconds": "histogram",
    "paceline_operator_queue_depth": "gauge",
    "paceline_operator_queue_wait_seconds": "histogram",
    "paceline_operator_reconcile_seconds": "histogram",
    "paceline_operator_services": "gauge",
    "paceline_operator_watch_events_total": "counter",
    "paceline_operator_writes_total": "counter",
}


def test_the_names_are_these() -> None:
    instruments = Instruments()
    instruments.count_services(lambda: {"True": 2})
    text = generate_latest(instruments.registry).decode()
    types = dict(line.split()[2:] for line in text.splitlines() if line.startswith("# TYPE"))
    assert types == NAMES
    assert 'paceline_operator_services{ready="True"} 2.0' in text
    assert 'paceline_operator_services{ready="False"} 0.0' in text


def test_the_labels_are_these() -> None:
    instruments = Instruments()
    instruments.api_calls.labels(kind="Deployment", verb="apply", outcome="ok")
    instruments.writes.labels(kind="Deployment", verb="apply")
    instruments.conflicts.labels(kind="Deployment", manager="gitops")
    instruments.reconcile_s.labels(outcome="ok")
    instruments.watch_events.labels(kind="Pod")
