"""lateen version. What asks istiod is imported when it is asked."""

from __future__ import annotations

import platform
from collections import Counter
from typing import TYPE_CHECKING, Any

import click

from lateen import __version__
from lateen.cli.base import command
from lateen.cli.connect import Target, target_options
from lateen.cli.output import CliError, say

if TYPE_CHECKING:
    from lateen.kit.jsons import Json


@command()
@target_options
@click.option("-r", "--revision", default="", help="The control plane to ask.")
@click.option("--remote/--no-remote", default=True, help="Also query the cluster.")
@click.option("-s", "--short", is_flag=True, help="Print only the version numbers.")
@click.option("-o", "--output", type=click.Choice(["json", "yaml"]), default=None, help="Print as JSON or YAML.")
def version(target: Target, revision: str, remote: bool, short: bool, output: str | None) -> None:
    """Print the versions of client, control plane and proxies."""
    found, wrong = _asked(target, revision) if remote else ({}, None)
    if output:
        _structured(found, output)
    elif not remote or wrong or not found:
        if remote and not wrong:
            say(f'no running Istio pods in "{target.istio_namespace}"')
        click.echo(__version__ if short else f"client version: {__version__}")
    elif short:
        click.echo(f"{__version__}\n{_first(found)['version']}")
    else:
        proxies = Counter(p["version"] for p in _proxies(found))
        click.echo(
            f"client version: {__version__}\ncontrol plane version: {_first(found)['version']}\n"
            f"data plane version: {', '.join(f'Envoy {v} ({n} proxies)' for v, n in sorted(proxies.items()))}"
        )
    if wrong:
        given = (target.kubeconfig, target.context, target.given_namespace, revision)
        if any(given) or target.istio_namespace != Target.istio_namespace:
            raise wrong
        say(str(wrong))  # without a cluster, the client's version is a valid answer


def _asked(target: Target, revision: str) -> tuple[dict[str, Any], CliError | None]:
    """Each istiod's own version report, by pod; or the error if none could be queried."""
    from lateen.cli.mesh import ask_istiods

    try:
        found = target.run(lambda client: ask_istiods(client, "/debug/statusz", target.istio_namespace, revision))
        return found, None
    except CliError as e:
        return {}, e


def _first(found: dict[str, Any]) -> Json:
    return dict(next(iter(found.values())))


def _proxies(found: dict[str, Any]) -> list[Json]:
    return sorted((p for said in found.values() for p in said["proxies"]), key=lambda p: str(p["proxy"]))


def _structured(found: dict[str, Any], output: str) -> None:
    """The keys are those of ``istioctl version -o json``; unknown values are empty."""
    from lateen.kit import jsons, yamldoc

    def build(number: str, language: str = "") -> Json:
        return {"version": number, "revision": "", "golang_version": language, "status": "", "tag": number}

    made: Json = {"clientVersion": build(__version__, f"Python {platform.python_version()}")}
    if found:
        made["meshVersion"] = [
            {"Component": "pilot", "Revision": said["revision"], "Info": build(said["version"])}
            for said in found.values()
        ]
        made["dataPlaneVersion"] = [
            {"ID": p["proxy"], "IstioVersion": p["version"], "Type": p["kind"]} for p in _proxies(found)
        ]
    click.echo(jsons.pretty(made) if output == "json" else yamldoc.dump(made), nl=output == "json")
