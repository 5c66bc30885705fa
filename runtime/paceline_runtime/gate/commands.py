"""The commands of the router pod: `gate`, its preStop `gate-drain`, and `router`.

Registered by `paceline_runtime.cli`. Options are checked here; nothing else happens here. What `gate` alone
needs is imported by it: the preStop hook starts in a busy pod and must not wait for a server's imports.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
from pathlib import Path
from typing import TYPE_CHECKING, get_args
from urllib.parse import urlsplit

import click

from paceline_core import GATE_ACCEPT_S
from paceline_runtime.gate import drain_hook
from paceline_runtime.gate import router as router_process

if TYPE_CHECKING:
    from paceline_runtime.gate.process import Engines

SOCKET = Path("/run/paceline/gate.sock")


class LoopbackUrl(click.ParamType[str]):
    """The URL of a router that only this pod can reach: whoever reaches it can remove workers."""

    name = "url"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        parts = urlsplit(value)
        try:
            loopback = ipaddress.ip_address(parts.hostname or "").is_loopback
        except ValueError:
            loopback = False
        if parts.scheme != "http" or not loopback or parts.path not in ("", "/"):
            self.fail(f"{value!r} is not of the form http://127.0.0.1:PORT", param, ctx)
        return value.rstrip("/")


class Worker(click.ParamType[str]):
    """A worker as `ip:port`."""

    name = "ip:port"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        host, _, port = value.rpartition(":")
        try:
            ipaddress.ip_address(host.strip("[]"))
            int(port)
        except ValueError:
            self.fail(f"{value!r} is not of the form IP:PORT", param, ctx)
        return value


@click.command()
@click.option(
    "--router", "router_url", type=LoopbackUrl(), default="http://127.0.0.1:8010", show_default=True
)
@click.option("--host", default=None, help="Address to listen on.  [default: all]")
@click.option("--port", type=int, default=8080, show_default=True, help="The service's port.")
@click.option("--ops-port", type=int, default=9090, show_default=True, help="Metrics, probes, /workers.")
@click.option("--service", required=True, help="Name of the InferenceService.")
@click.option("--namespace", help="Namespace of the engine pods.")
@click.option("--selector", help="Labels of the engine pods, a=b,c=d.")
@click.option("--engine-port", type=int, default=8000, show_default=True)
@click.option(
    "--api-keys-dir",
    type=click.Path(path_type=Path),
    help="Every file in it is a valid key. Without the option the service is open.",
)
@click.option("--targets", type=click.Path(path_type=Path), help="targets.json: histogram edges.")
@click.option("--max-held-requests", type=click.IntRange(min=0), default=100, show_default=True)
@click.option("--max-hold-seconds", type=click.FloatRange(min=0), default=30, show_default=True)
@click.option(
    "--keep-alive-seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=15,
    show_default=True,
    help="A held stream gets a comment this often.",
)
@click.option("--max-request-seconds", type=click.FloatRange(min=0, min_open=True), required=True)
@click.option("--socket", type=click.Path(path_type=Path), default=SOCKET, show_default=True)
@click.option("--no-discovery", is_flag=True, help="No Kubernetes: the workers are those given.")
@click.option("--worker", "workers", type=Worker(), multiple=True, help="With --no-discovery; repeatable.")
@click.option("--api-server", help="URL of the API server.  [default: the cluster's]")
def gate(
    router_url: str,
    host: str | None,
    port: int,
    ops_port: int,
    service: str,
    namespace: str | None,
    selector: str | None,
    engine_port: int,
    api_keys_dir: Path | None,
    targets: Path | None,
    max_held_requests: int,
    max_hold_seconds: float,
    keep_alive_seconds: float,
    max_request_seconds: float,
    socket: Path,
    no_discovery: bool,
    workers: tuple[str, ...],
    api_server: str | None,
) -> None:
    """Guard the router of one service."""
    from paceline_runtime.gate import process
    from paceline_runtime.gate.keys import KeysUnreadable
    from paceline_runtime.gate.proxy import Limits
    from paceline_runtime.logs import configure_logs

    engines: Engines | frozenset[str]
    if no_discovery:
        engines = frozenset(workers)
    else:
        if workers:
            raise click.UsageError("--worker names workers by hand: it needs --no-discovery")
        engines = _engines(namespace, selector=selector, port=engine_port, api_server=api_server)
    settings = process.GateSettings(
        service=service,
        router_url=router_url,
        engines=engines,
        limits=Limits(
            max_hold_s=max_hold_seconds, max_request_s=max_request_seconds, keep_alive_s=keep_alive_seconds
        ),
        max_held=max_held_requests,
        host=host,
        port=port,
        ops_port=ops_port,
        api_keys_dir=api_keys_dir,
        targets=targets,
        socket=socket,
    )
    configure_logs()
    try:
        asyncio.run(process.run(settings))
    except KeysUnreadable as error:
        raise click.ClickException(str(error)) from error


def _engines(namespace: str | None, *, selector: str | None, port: int, api_server: str | None) -> Engines:
    from paceline_runtime.gate.pods import ApiServer, service_account
    from paceline_runtime.gate.process import Engines

    if not namespace or not selector:
        raise click.UsageError("--namespace and --selector are needed to find the pods (or --no-discovery)")
    account = service_account()
    if api_server is None:
        api = ApiServer.of_cluster(os.environ, account_dir=account)
    else:
        token = account / "token"
        ca = account / "ca.crt"
        api = ApiServer(
            url=api_server.rstrip("/"),
            token_path=token if token.exists() else None,
            ca_path=ca if ca.exists() else None,
        )
    if api is None:
        raise click.UsageError("not in a cluster: give --api-server, or --no-discovery with --worker")
    return Engines(api=api, namespace=namespace, selector=selector, port=port)


@click.command("gate-drain")
@click.option("--socket", type=click.Path(path_type=Path), default=SOCKET, show_default=True)
@click.option("--accept-seconds", type=click.FloatRange(min=0), default=GATE_ACCEPT_S, show_default=True)
def gate_drain(socket: Path, accept_seconds: float) -> None:
    """preStop of the gate: leave the endpoints, go on accepting for a while."""
    try:
        drain_hook.drain(socket, accept_s=accept_seconds)
    except drain_hook.NoGate as error:
        raise click.ClickException(str(error)) from error


@click.command()
@click.option("--service", required=True, help="Name of the InferenceService.")
@click.option("--namespace", required=True, help="Namespace of the engine pods.")
@click.option("--selector", required=True, help="Labels of the engine pods, a=b,c=d.")
@click.option(
    "--policy", type=click.Choice(get_args(router_process.Policy)), default="PowerOfTwo", show_default=True
)
@click.option("--max-request-seconds", type=click.IntRange(min=1), required=True)
@click.option("--port", type=int, default=8010, show_default=True, help="On 127.0.0.1.")
@click.option("--engine-port", type=int, default=8000, show_default=True)
def router(
    service: str,
    namespace: str,
    selector: str,
    policy: router_process.Policy,
    max_request_seconds: int,
    port: int,
    engine_port: int,
) -> None:
    """Become vllm-router, with the flags that a service needs."""
    try:
        argv = router_process.argv(
            namespace=namespace,
            selector=selector,
            policy=policy,
            max_request_s=max_request_seconds,
            port=port,
            engine_port=engine_port,
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    click.echo(f"event=router_started service={service} policy={policy} port={port}", err=True)
    os.execve(argv[0], argv, {**os.environ, **router_process.ENVIRONMENT})
