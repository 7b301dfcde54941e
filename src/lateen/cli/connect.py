"""Selection of the cluster for a command: --kubeconfig, $KUBECONFIG, the embedded one, ~/.kube/config."""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import click

from lateen.api import kinds
from lateen.cli.output import BAD_DATA, CliError
from lateen.cluster.home import Home
from lateen.kube.client import HttpClient, KubeError, Unreachable
from lateen.kube.errors import Stranger
from lateen.kube.kubeconfig import ConfigError, from_files, namespace_of

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

kubeconfig_option = click.option("-c", "--kubeconfig", default=None, help="Kubernetes configuration file.")
context_option = click.option("--context", default="", help="The context of the configuration file to use.")


def paths_of(given: str | None) -> list[Path]:
    """The kubeconfig's files; several if $KUBECONFIG names several. Raises CliError if there is none at all."""
    if given:
        if not Path(given).is_file():
            raise CliError(f"{given}: no such file", BAD_DATA)
        return [Path(given)]
    if named := [Path(p).expanduser() for p in os.environ.get("KUBECONFIG", "").split(os.pathsep) if p]:
        return named
    embedded = Home.default().kubeconfig
    if embedded.exists():
        return [embedded]
    usual = Path.home() / ".kube" / "config"
    if usual.exists():
        return [usual]
    raise CliError(
        "there is no cluster to talk to; start the embedded one with: lateen cluster start, or name a "
        "configuration with --kubeconfig"
    )


@dataclass(frozen=True)
class Target:
    """The cluster and namespaces selected by a command's options."""

    kubeconfig: str | None = None
    context: str = ""
    given_namespace: str = ""
    istio_namespace: str = "istio-system"

    @property
    def namespace(self) -> str:
        """-n, or the namespace of the kubeconfig's context, or ``default``."""
        if self.given_namespace:
            return self.given_namespace
        try:
            paths = paths_of(self.kubeconfig)
        except CliError:
            if self.kubeconfig or self.context:
                raise
            return "default"
        try:
            return namespace_of(paths, self.context)
        except ConfigError as e:
            raise CliError(str(e)) from e

    def run(self, work: Callable[[HttpClient], Awaitable[T]]) -> T:
        """Run ``work`` with a client. Raises CliError, also if the given namespace does not exist."""

        async def checked(client: HttpClient) -> T:
            if self.given_namespace:
                await _exists(client, self.given_namespace)
            return await work(client)

        return with_client(self.kubeconfig, checked, self.context)


async def _exists(client: HttpClient, namespace: str) -> None:
    """Check that the given namespace exists, unless the user may not read namespaces. Raises CliError."""
    try:
        found = await client.get(kinds.NAMESPACE, "", namespace)
    except KubeError as e:
        if e.code != 403:
            raise
        return
    if found is None:
        raise CliError(f'namespace "{namespace}" not found')


def complete(kind: kinds.Kind) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    """Shell completion of object names; no suggestions if the cluster does not answer at once."""

    def names(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
        namespace = str(ctx.params.get("namespace") or "default") if kind.namespaced else ""

        async def work(client: HttpClient) -> list[str]:
            async with asyncio.timeout(1):
                found, _ = await client.list(kind, namespace)
            return [str(o["metadata"]["name"]) for o in found]

        try:
            return [n for n in with_client(ctx.params.get("kubeconfig"), work) if n.startswith(incomplete)]
        except CliError:
            return []

    return names


def target_options(command: F) -> F:
    """-c, --context, -n, -i: passed on as the single parameter ``target``."""

    @functools.wraps(command)
    def wrapped(*args: Any, **given: Any) -> Any:
        target = Target(
            given.pop("kubeconfig"), given.pop("context"), given.pop("namespace"), given.pop("istio_namespace")
        )
        return command(*args, target=target, **given)

    options = (
        kubeconfig_option,
        context_option,
        click.option(
            "-n", "--namespace", default="", help="The namespace to use.", shell_complete=complete(kinds.NAMESPACE)
        ),
        click.option(
            "-i", "--istioNamespace", "istio_namespace", default="istio-system", help="The control plane's namespace."
        ),
    )
    for option in options:
        wrapped = option(wrapped)
    return cast(F, wrapped)


def with_client(given: str | None, work: Callable[[HttpClient], Awaitable[T]], context: str = "") -> T:
    """Run ``work`` with a client. Raises CliError for failures of the API."""

    async def main() -> T:
        async with from_files(paths_of(given), context) as client:
            return await work(client)

    try:
        return asyncio.run(main())
    except ConfigError as e:
        raise CliError(str(e)) from e
    except Stranger as e:
        raise CliError(str(e)) from e
    except Unreachable as e:
        raise CliError(f"{e}; is the cluster running? (lateen cluster status)") from e
    except KubeError as e:
        raise CliError(e.message) from e
    except TimeoutError as e:
        raise CliError(str(e) or "timed out") from e
