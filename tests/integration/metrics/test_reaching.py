"""Ways to Prometheus: TLS, certificates of our own, tokens that rotate; and what its configuration must hold."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml

from e2e.cluster.certificates import Authority, Party
from paceline.metrics import PrometheusSettings, ServiceMetrics, series
from paceline.metrics.prometheus import Answer, Prometheus, Row
from tests.integration.metrics.faults import Proxies, Proxy
from tests.integration.metrics.prometheus_server import PrometheusServer, Target
from tests.integration.metrics.world import KEY, World, available, eventually

pytestmark = pytest.mark.asyncio(loop_scope="package")

ADDON = Path(__file__).parents[3] / "e2e" / "cluster" / "addons" / "prometheus.yaml"


@dataclass(slots=True)
class Guarded:
    """Prometheus behind TLS that asks for a certificate and a token."""

    world: World
    proxy: Proxy
    settings: PrometheusSettings
    pki: Authority

    async def look(self, settings: PrometheusSettings) -> ServiceMetrics:
        return await self.world.look(prometheus=settings)


@pytest_asyncio.fixture(loop_scope="package")
async def guarded(one: World, tmp_path: Path) -> AsyncIterator[Guarded]:
    pki = Authority(tmp_path / "pki")
    pki.ensure([Party("server", "/CN=prometheus", ("IP:127.0.0.1",)), Party("client", "/CN=operator")])
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=pki.certificate("ca"))
    context.load_cert_chain(pki.certificate("server"), pki.key("server"))
    context.verify_mode = ssl.CERT_REQUIRED
    token = tmp_path / "token"
    token.write_text("first\n")
    proxies = Proxies()
    proxy = Proxy(upstream=one.prometheus.url, tls=context, token="first")
    proxies.made.append(await proxy.start())
    settings = PrometheusSettings(
        url=proxy.url,
        bearer_token_file=token,
        ca_file=pki.certificate("ca"),
        certificate_file=pki.certificate("client"),
        key_file=pki.key("client"),
        attempts=1,
    )
    yield Guarded(world=one, proxy=proxy, settings=settings, pki=pki)
    await proxies.close()


async def test_with_token_and_certificates(guarded: Guarded) -> None:
    assert (await guarded.look(guarded.settings)).source == "Prometheus"


async def test_a_token_that_rotates_is_read_again(guarded: Guarded) -> None:
    assert guarded.settings.bearer_token_file is not None
    async with guarded.world.source(prometheus=guarded.settings) as source:
        assert (await guarded.world.collect(source)).source == "Prometheus"
        guarded.proxy.token = "second"
        refused = await guarded.world.collect(source)
        assert refused.availability.reason == "QueryFailed"
        assert "bearer token" in refused.availability.message
        assert "first" not in refused.availability.message
        guarded.settings.bearer_token_file.write_text("second")
        assert (await guarded.world.collect(source)).source == "Prometheus"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        pytest.param({"ca_file": None}, "not trusted", id="an authority that is not known"),
        pytest.param({"certificate_file": None, "key_file": None}, "", id="no certificate of ours"),
        pytest.param({"bearer_token_file": Path("/nowhere/token")}, "token cannot be read", id="no token"),
        pytest.param({"ca_file": Path("/nowhere/ca")}, "No such file", id="no file"),
    ],
)
async def test_what_is_missing_is_named(guarded: Guarded, change: dict[str, Any], says: str) -> None:
    metrics = await guarded.look(replace(guarded.settings, **change))
    assert metrics.availability.available is False
    assert metrics.availability.reason in ("QueryFailed", "PrometheusUnreachable")
    assert says in metrics.availability.message


async def test_pods_that_are_scraped_twice_count_once(one: World, tmp_path: Path) -> None:
    def counted_once(metrics: ServiceMetrics) -> None:
        available(metrics)
        assert metrics.traffic.requests_per_s.value == pytest.approx(16, rel=0.15)
        assert metrics.traffic.output is not None
        assert sum(metrics.traffic.output.counts) == pytest.approx(16 * one.rules.window_s, rel=0.2)

    server = PrometheusServer(tmp_path / "twice", jobs=("podmonitor", "annotated"), scrape_s=one.scrape_s)
    server.scrape(one.targets(one.pods))
    server.start()
    try:
        settings = PrometheusSettings(url=server.url)
        async with one.load(rate_per_s=16):
            await one.eventually(available, prometheus=settings)
            await asyncio.sleep(one.rules.window_s)
            await one.eventually(counted_once, prometheus=settings)
    finally:
        await server.process.stop()


async def test_samples_that_a_restart_left_behind_are_stale(one: World, tmp_path: Path) -> None:
    """Prometheus answers with the last sample for five minutes; nothing but its time tells how old it is."""

    def stale(metrics: ServiceMetrics) -> None:
        assert metrics.availability.reason == "Stale", metrics.availability
        assert metrics.traffic.held_requests.trust == "Stale"
        assert metrics.engines[1].running.trust == "Stale"
        assert metrics.engines[1].running.age_s is not None
        assert metrics.engines[1].running.age_s > one.rules.stale_after_s
        assert metrics.traffic.requests_per_s.fresh is None

    server = PrometheusServer(tmp_path / "again", scrape_s=one.scrape_s)
    server.scrape(one.targets(one.pods))
    server.start()
    settings = PrometheusSettings(url=server.url)
    try:
        await one.eventually(available, prometheus=settings)
        await server.end()
        server.scrape([])
        await asyncio.sleep(one.rules.stale_after_s)
        server.process.start()
        await one.eventually(stale, prometheus=settings)
    finally:
        await server.process.stop()


async def test_the_clusters_prometheus_gives_the_labels_that_are_asked_for(
    one: World, tmp_path: Path
) -> None:
    """Its own relabelling, fed with what Kubernetes' discovery says of these pods."""
    documents = [found for found in yaml.safe_load_all(ADDON.read_text()) if found["kind"] == "ConfigMap"]
    config = yaml.safe_load(documents[0]["data"]["prometheus.yml"])
    for job, expected in (("paceline", True), ("annotated", False)):
        relabel = next(one for one in config["scrape_configs"] if one["job_name"] == job)["relabel_configs"]
        server = PrometheusServer(tmp_path / job, relabel_configs=relabel, scrape_s=one.scrape_s)
        server.scrape([_discovered(one, name) for name in ("engine-c", "gate-1")])
        server.start()
        try:
            assert await server.until_known(2) == (2 if expected else 0)
            prometheus = Prometheus(PrometheusSettings(url=server.url))
            try:
                rows = await _up(prometheus, expected=2 if expected else 0, within_s=3 * one.scrape_s)
            finally:
                await prometheus.close()
        finally:
            await server.process.stop()
        for row in rows:
            assert row.labels[series.NAMESPACE] == KEY.namespace
            assert row.labels[series.SERVICE] == KEY.name
            assert row.labels[series.POD] in ("engine-c", "gate-1")
            size = row.labels.get(series.TENSOR_PARALLEL_SIZE)
            assert size == ("2" if row.labels[series.POD] == "engine-c" else None)


def _discovered(one: World, name: str) -> Target:
    pod = one.pod(name)
    engine = pod.component == "engine"
    labels = {
        "app_kubernetes_io_managed_by": "paceline",
        "app_kubernetes_io_name": f"paceline-{pod.component}",
        "paceline_dev_service": KEY.name,
        "paceline_dev_component": pod.component,
        **({"paceline_dev_tensor_parallel_size": "2", "paceline_dev_variant": "tp2-1"} if engine else {}),
    }
    meta = {
        "namespace": KEY.namespace,
        "pod_name": name,
        "pod_phase": "Running",
        "pod_container_name": "engine" if engine else "gate",
        "pod_container_port_name": "http" if engine else "ops",
        "pod_annotation_prometheus_io_scrape": "true",
        **{f"pod_label_{label}": value for label, value in labels.items()},
    }
    return Target(
        address=one.pages[name].address,
        labels={f"__meta_kubernetes_{label}": value for label, value in meta.items()},
    )


async def _up(prometheus: Prometheus, *, expected: int, within_s: float) -> Sequence[Row]:
    """What was scraped, once it is as much as is expected; of nothing, that it stays so for that long."""
    if not expected:
        await asyncio.sleep(within_s)

    def complete(answer: Answer) -> None:
        assert len(answer.rows) == expected

    return (await eventually(lambda: prometheus.query("up"), complete)).rows
