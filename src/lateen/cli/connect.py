"""Which cluster a command speaks to: --kubeconfig, $KUBECONFIG, the embedded one, ~/.kube/config."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import click

from lateen.cli.output import CliError
from lateen.cluster.home import Home
from lateen.kube.client import HttpClient, KubeError, Unreachable
from lateen.kube.kubeconfig import ConfigError, from_file

T = TypeVar("T")

kubeconfig_option = click.option("-c", "--kubeconfig", default=None, help="Kubernetes configuration file.")
context_option = click.option("--context", default="", help="The context of the configuration file to use.")


def path_of(given: str | None) -> Path:
    """Raises CliError where there is no configuration at all."""
    if given:
        return Path(given)
    if env := os.environ.get("KUBECONFIG"):
        return Path(env.partition(":")[0])
    embedded = Home.default().kubeconfig
    if embedded.exists():
        return embedded
    usual = Path.home() / ".kube" / "config"
    if usual.exists():
        return usual
    raise CliError(
        "there is no cluster to speak to; start the embedded one with: lateen cluster start, or name a "
        "configuration with --kubeconfig"
    )


def with_client(given: str | None, work: Callable[[HttpClient], Awaitable[T]], context: str = "") -> T:
    """Run ``work`` with a client; failures of the API are sentences."""

    async def main() -> T:
        async with from_file(path_of(given), context) as client:
            return await work(client)

    try:
        return asyncio.run(main())
    except ConfigError as e:
        raise CliError(str(e)) from e
    except Unreachable as e:
        raise CliError(f"{e}; is the cluster running? (lateen cluster status)") from e
    except KubeError as e:
        raise CliError(e.message) from e
    except TimeoutError as e:
        raise CliError(str(e) or "timed out") from e
