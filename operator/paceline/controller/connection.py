"""Where the API server is and how we authenticate, once, for kopf's watches and for our own calls.

Called by `process` at start. The official client (`kubernetes.aio`) reads the kubeconfig or the pod's service
account, with its token refresh, exec plug-ins and client certificates; its generated models and its
`ApiClient` are not used: they copy every body twice, and the operator spends most of its processor time on
bodies. A request here is one `aiohttp` call with JSON in and JSON out.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import aiohttp
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.client.rest import RESTClientObject
from kubernetes.aio.config import ConfigException, load_incluster_config, load_kube_config

from paceline.controller.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Connection:
    """One API server with credentials. `session()` may be called again after a 401: it reads fresh ones."""

    configuration: Configuration

    @classmethod
    async def load(cls, *, kubeconfig: Path | None) -> Connection:
        configuration = Configuration()
        try:
            if kubeconfig is None:
                load_incluster_config(client_configuration=configuration)
            else:
                await load_kube_config(
                    config_file=str(kubeconfig), client_configuration=configuration, persist_config=False
                )
        except ConfigException as error:
            raise ConfigurationError(
                f"no way to the Kubernetes API ({error}): run in a pod with a service account, "
                "or pass --kubeconfig FILE"
            ) from error
        return cls(configuration=configuration)

    @property
    def server(self) -> str:
        return str(self.configuration.host).rstrip("/")

    def session(self, *, connections: int) -> aiohttp.ClientSession:
        """`connections` = 0 means no limit (watches: one each for as long as it lasts)."""
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=connections,
                ssl=RESTClientObject(self.configuration).ssl_context,
                # The API server closes idle connections after minutes; below that a reused one is alive.
                keepalive_timeout=60,
            ),
            headers={"Accept": "application/json", "User-Agent": "paceline-operator"},
            middlewares=(self._authorize,),
            proxy=self.configuration.proxy or None,
        )

    async def _authorize(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        # Asked for every request: a service account token is replaced on disk every hour.
        token = await self.configuration.get_api_key_with_prefix("BearerToken", alias="authorization")
        if token:
            request.headers["Authorization"] = token
        elif self.configuration.username:
            request.headers["Authorization"] = self.configuration.get_basic_auth_token()
        return await handler(request)
