"""Turns PromQL answers into the planner's observation, with the age, samples and trust of every figure.

    source = MetricsSource(MetricsSettings(prometheus=PrometheusSettings(url="http://prometheus:9090")))
    metrics = await source.collect({key: ServiceFacts(pods=observed.pods) for key, observed in …})
    observation = observe(metrics[key], now_s=now_s, goal=goal, cluster=ClusterFacts(pods=…, nodes=…))

Called by the controller once a tick. It talks to Prometheus and, when that fails for long, to the pods; it
must not talk to Kubernetes.
"""

from paceline.metrics.facts import ClusterFacts, PodView, ServiceFacts, ServiceKey
from paceline.metrics.gates import Gates
from paceline.metrics.measure import nothing_measured
from paceline.metrics.observe import observe
from paceline.metrics.service_metrics import Availability, EngineFigures, Reason, ServiceMetrics, Source
from paceline.metrics.settings import MetricsSettings, PrometheusSettings, Rules
from paceline.metrics.source import MetricsSource

__all__ = [
    "Availability",
    "ClusterFacts",
    "EngineFigures",
    "Gates",
    "MetricsSettings",
    "MetricsSource",
    "PodView",
    "PrometheusSettings",
    "Reason",
    "Rules",
    "ServiceFacts",
    "ServiceKey",
    "ServiceMetrics",
    "Source",
    "nothing_measured",
    "observe",
]
