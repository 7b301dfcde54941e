"""lateen version. The imports for asking the cluster are inside the functions: the local half is instant."""

from __future__ import annotations

from collections import Counter

import click

from lateen import __version__
from lateen.cli.base import command
from lateen.cli.output import CliError, say


@command()
@click.option("-c", "--kubeconfig", default=None, help="Kubernetes configuration file.")
@click.option("--context", default="", help="The context of the configuration file to use.")
@click.option("--remote", type=bool, default=True, help="Also ask the cluster.")
@click.option("-s", "--short", is_flag=True, help="Print only the version numbers.")
def version(kubeconfig: str | None, context: str, remote: bool, short: bool) -> None:
    """Print the versions of client, control plane and proxies."""
    client = __version__ if short else f"client version: {__version__}"
    if not remote:
        click.echo(client)
        return
    from lateen.cli.connect import with_client
    from lateen.cli.mesh import sync_status
    from lateen.install.objects import NAMESPACE

    try:
        found = with_client(kubeconfig, sync_status, context)
    except CliError as e:
        click.echo(client)
        if kubeconfig or context:
            raise
        say(str(e))  # without a cluster, the client's version is a valid answer
        return
    if found is None:
        say(f'no running Istio pods in "{NAMESPACE}"')
        click.echo(client)
    elif short:
        click.echo(f"{__version__}\n{found['version']}")
    else:
        proxies = Counter(p["version"] for p in found["proxies"])
        click.echo(
            f"{client}\ncontrol plane version: {found['version']}\n"
            f"data plane version: {', '.join(f'Envoy {v} ({n} proxies)' for v, n in sorted(proxies.items()))}"
        )
