"""Reads a cluster for the commands that explain: the user's kubeconfig, GET requests and nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import click
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.config import ConfigException, load_kube_config
from kubernetes.config.kube_config import list_kube_config_contexts

from paceline.controller.connection import Connection
from paceline.controller.resources import Resource

TIMEOUT_S = 15.0

Raw = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ClusterReader:
    server: str
    session: aiohttp.ClientSession

    async def get(self, resource: Resource, *, namespace: str | None, name: str) -> Raw | None:
        """None where there is no such object."""
        return await self._get(resource.path(namespace, name))

    async def list(
        self, resource: Resource, *, namespace: str | None = None, selector: str | None = None
    ) -> list[Raw]:
        params = {"labelSelector": selector} if selector else {}
        found = await self._get(resource.path(namespace), params)
        items: list[Raw] = (found or {}).get("items") or []
        for item in items:
            item.setdefault("apiVersion", resource.api_version)
            item.setdefault("kind", resource.kind)
        return items

    async def _get(self, path: str, params: dict[str, str] | None = None) -> Raw | None:
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        try:
            async with self.session.get(self.server + path, params=params, timeout=timeout) as answer:
                if answer.status == 404:
                    return None
                if answer.status >= 300:
                    raise click.ClickException(
                        f"the API server answered {answer.status} to GET {path}: {(await answer.text())[:300]}"
                    )
                parsed: Raw = await answer.json()
                return parsed
        except (aiohttp.ClientError, TimeoutError) as error:
            raise click.ClickException(f"no answer from {self.server}: {error}") from error


@asynccontextmanager
async def cluster_reader(*, kubeconfig: Path | None, context: str | None) -> AsyncIterator[ClusterReader]:
    configuration = Configuration()
    try:
        await load_kube_config(
            config_file=str(kubeconfig) if kubeconfig is not None else None,
            context=context,
            client_configuration=configuration,
            persist_config=False,
        )
    except (ConfigException, OSError) as error:
        raise click.ClickException(f"no way to a cluster ({error}): pass --kubeconfig FILE") from error
    connection = Connection(configuration=configuration)
    async with connection.session(connections=4) as session:
        yield ClusterReader(server=connection.server, session=session)


def namespace_of(*, kubeconfig: Path | None, context: str | None) -> str:
    """The namespace of the context, as kubectl takes it."""
    try:
        contexts, active = list_kube_config_contexts(str(kubeconfig) if kubeconfig is not None else None)
    except Exception:
        return "default"
    chosen = next((one for one in contexts if one["name"] == context), active)
    return str(((chosen or {}).get("context") or {}).get("namespace") or "default")


def options(command: Any) -> Any:
    """--kubeconfig, --context and --namespace, as kubectl has them."""
    for option in (
        click.option("--kubeconfig", type=click.Path(path_type=Path), help="As for kubectl."),
        click.option("--context", help="As for kubectl."),
        click.option("-n", "--namespace", help="Not given: that of the context."),
    ):
        command = option(command)
    return command
