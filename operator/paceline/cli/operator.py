"""`paceline operator`: the process that the chart runs. Flags in, `OperatorSettings` out; no logic."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import uuid
from importlib.metadata import version
from pathlib import Path

import click

from paceline.fleet.settings import ImagePullPolicy, Images, Settings

SERVICE_ACCOUNT_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


class KeyValue(click.ParamType[tuple[str, str]]):
    name = "KEY=VALUE"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        key, separator, text = str(value).partition("=")
        if not separator or not key:
            self.fail(f"{value!r} is not of the form KEY=VALUE", param, ctx)
        return key, text


@click.command("operator", context_settings={"auto_envvar_prefix": "PACELINE", "show_default": True})
@click.option(
    "--namespace",
    "namespaces",
    multiple=True,
    envvar="PACELINE_NAMESPACE",
    show_envvar=True,
    help="Serve this namespace only (repeatable; in the variable, separated by spaces). None given: all.",
)
@click.option(
    "--kubeconfig",
    type=click.Path(path_type=Path),
    show_envvar=True,
    help="Credentials for the API server. Not given: the service account of the pod.",
)
@click.option(
    "--lease-namespace", show_envvar=True, help="Where the Lease lies. Not given: the namespace of the pod."
)
@click.option("--lease-name", default="paceline-operator", show_envvar=True, help="Name of the Lease.")
@click.option(
    "--lease-duration-seconds",
    type=click.IntRange(min=2),
    default=15,
    show_envvar=True,
    help="How long after its last sign of life a leader is replaced.",
)
@click.option(
    "--metrics-host", default="0.0.0.0", show_envvar=True, help="Address of /metrics, /healthz, /readyz."
)
@click.option("--metrics-port", type=int, default=8080, show_envvar=True, help="Port of the same.")
@click.option(
    "--runtime-image-gpu",
    default="docker.io/paceline/runtime-gpu:dev",
    show_envvar=True,
    help="Image of engine pods with GPUs, unless spec.runtime.image is set.",
)
@click.option(
    "--runtime-image-cpu",
    default="docker.io/paceline/runtime-cpu:dev",
    show_envvar=True,
    help="Image of engine pods on the CPU, unless spec.runtime.image is set.",
)
@click.option(
    "--emulator-image", show_envvar=True, help="Image of emulated engine pods. Not given: the router image."
)
@click.option(
    "--router-image",
    default="docker.io/paceline/router:dev",
    show_envvar=True,
    help="Image of the router pods.",
)
@click.option(
    "--image-pull-policy",
    type=click.Choice(["Always", "IfNotPresent", "Never"]),
    default="IfNotPresent",
    show_envvar=True,
    help="For all of these images.",
)
@click.option(
    "--foreign-writer-grace-seconds",
    type=click.FloatRange(min=0),
    default=300.0,
    show_envvar=True,
    help="How long a field written by another manager is left alone.",
)
@click.option(
    "--outer-drain-limit-seconds",
    type=click.IntRange(min=1),
    default=600,
    show_envvar=True,
    help="How long the cluster lets a pod leave when it takes the node away.",
)
@click.option(
    "--prometheus-namespace-label",
    "prometheus_namespace_labels",
    type=KeyValue(),
    multiple=True,
    show_envvar=True,
    help="Namespaces whose Prometheus may scrape the pods (repeatable). None: any.",
)
@click.option(
    "--prometheus-pod-label",
    "prometheus_pod_labels",
    type=KeyValue(),
    multiple=True,
    show_envvar=True,
    default=["app.kubernetes.io/name=prometheus"],
    help="Labels of the Prometheus pods (repeatable).",
)
@click.option(
    "--pod-monitor-label",
    "pod_monitor_labels",
    type=KeyValue(),
    multiple=True,
    show_envvar=True,
    help="Label that the cluster's Prometheus selects PodMonitors by (repeatable).",
)
@click.option(
    "--hub-endpoint",
    default="https://huggingface.co",
    show_envvar=True,
    help="Where hf:// models are looked up; empty: nowhere.",
)
@click.option(
    "--prometheus-url",
    default="",
    show_envvar=True,
    help="Where metrics are read (Prometheus, Thanos, Mimir, VictoriaMetrics), with the prefix before "
    "/api/v1. Empty: nothing is measured and nothing scales by itself.",
)
@click.option(
    "--prometheus-bearer-token-file",
    type=click.Path(path_type=Path),
    show_envvar=True,
    help="File with the token for it.",
)
@click.option(
    "--prometheus-ca-file",
    type=click.Path(path_type=Path),
    show_envvar=True,
    help="Certificate authority of it. Not given: the system's.",
)
@click.option(
    "--prometheus-certificate-file",
    type=click.Path(path_type=Path),
    show_envvar=True,
    help="Client certificate for it.",
)
@click.option(
    "--prometheus-key-file",
    type=click.Path(path_type=Path),
    show_envvar=True,
    help="Key of the client certificate.",
)
@click.option(
    "--prometheus-header",
    "prometheus_headers",
    type=KeyValue(),
    multiple=True,
    show_envvar=True,
    help="Header of every query, such as X-Scope-OrgID=tenant (repeatable).",
)
@click.option(
    "--prometheus-matcher",
    "prometheus_matchers",
    type=KeyValue(),
    multiple=True,
    show_envvar=True,
    help="Label of every series of this cluster, where one endpoint has several (repeatable).",
)
@click.option(
    "--metrics-window-seconds",
    type=click.FloatRange(min=10),
    default=60.0,
    show_envvar=True,
    help="Rates and percentiles are over this time: at least four scrapes.",
)
@click.option(
    "--decision-period-seconds",
    type=click.FloatRange(min=1),
    default=15.0,
    show_envvar=True,
    help="The planner is asked this often.",
)
@click.option(
    "--cluster-gpu-budget",
    type=click.IntRange(min=1),
    show_envvar=True,
    help="GPUs that all services together may hold; those in Auto share what the others leave, by "
    "spec.scaling.priority. Not given: as many as there are.",
)
@click.option(
    "--resync-seconds",
    type=click.FloatRange(min=1),
    default=60.0,
    show_envvar=True,
    help="Every service is looked at this often, even if nothing was heard.",
)
def operator_command(
    *,
    namespaces: tuple[str, ...],
    kubeconfig: Path | None,
    lease_namespace: str | None,
    lease_name: str,
    lease_duration_seconds: int,
    metrics_host: str,
    metrics_port: int,
    runtime_image_gpu: str,
    runtime_image_cpu: str,
    emulator_image: str | None,
    router_image: str,
    image_pull_policy: ImagePullPolicy,
    foreign_writer_grace_seconds: float,
    outer_drain_limit_seconds: int,
    prometheus_namespace_labels: tuple[tuple[str, str], ...],
    prometheus_pod_labels: tuple[tuple[str, str], ...],
    pod_monitor_labels: tuple[tuple[str, str], ...],
    hub_endpoint: str,
    prometheus_url: str,
    prometheus_bearer_token_file: Path | None,
    prometheus_ca_file: Path | None,
    prometheus_certificate_file: Path | None,
    prometheus_key_file: Path | None,
    prometheus_headers: tuple[tuple[str, str], ...],
    prometheus_matchers: tuple[tuple[str, str], ...],
    metrics_window_seconds: float,
    decision_period_seconds: float,
    cluster_gpu_budget: int | None,
    resync_seconds: float,
) -> None:
    """Serve InferenceServices: watch them, and keep their pods, routers and policies as their specs say."""
    # Not at the top: `paceline crds` and the others must not pay for the framework.
    from paceline.controller.errors import ControllerError
    from paceline.controller.lease import LeaseSettings
    from paceline.controller.logs import configure_logs
    from paceline.controller.process import OperatorProcess
    from paceline.controller.settings import OperatorSettings
    from paceline.metrics import MetricsSettings, PrometheusSettings, Rules

    namespace = lease_namespace or _pod_namespace()
    if namespace is None:
        raise click.UsageError("--lease-namespace is needed outside a pod: the namespace of the Lease")
    configure_logs()
    settings = OperatorSettings(
        fleet=Settings(
            images=Images(
                runtime_gpu=runtime_image_gpu,
                runtime_cpu=runtime_image_cpu,
                emulator=emulator_image or router_image,
                router=router_image,
            ),
            operator_version=version("paceline"),
            operator_namespace=namespace,
            prometheus_namespace_labels=dict(prometheus_namespace_labels),
            prometheus_pod_labels=dict(prometheus_pod_labels),
            image_pull_policy=image_pull_policy,
            pod_monitor_labels=dict(pod_monitor_labels),
            foreign_writer_grace_s=foreign_writer_grace_seconds,
            outer_drain_limit_s=outer_drain_limit_seconds,
        ),
        lease=LeaseSettings(
            namespace=namespace, name=lease_name, identity=_identity(), duration_s=lease_duration_seconds
        ),
        metrics=MetricsSettings(
            prometheus=PrometheusSettings(
                url=prometheus_url,
                bearer_token_file=prometheus_bearer_token_file,
                ca_file=prometheus_ca_file,
                certificate_file=prometheus_certificate_file,
                key_file=prometheus_key_file,
                headers=dict(prometheus_headers),
                matchers=dict(prometheus_matchers),
            )
            if prometheus_url
            else None,
            rules=Rules(window_s=metrics_window_seconds),
        ),
        decision_period_s=decision_period_seconds,
        cluster_gpu_budget=cluster_gpu_budget,
        namespaces=namespaces,
        kubeconfig=kubeconfig,
        metrics_host=metrics_host,
        metrics_port=metrics_port,
        hub_endpoint=hub_endpoint or None,
        resync_s=resync_seconds,
    )

    async def serve() -> int:
        return await OperatorProcess(settings).run()

    try:
        sys.exit(asyncio.run(serve()))
    except ControllerError as error:
        raise click.ClickException(str(error)) from error


def _pod_namespace() -> str | None:
    if (name := os.environ.get("POD_NAMESPACE")) is not None:
        return name
    try:
        return SERVICE_ACCOUNT_NAMESPACE.read_text().strip()
    except OSError:
        return None


def _identity() -> str:
    # Never the name alone: a container that was restarted must not take itself for the holder that was
    # killed while a write of that one may still be on its way.
    return f"{os.environ.get('POD_NAME') or socket.gethostname()}_{uuid.uuid4().hex[:8]}"
