"""lateen x ca: the mesh's certificate authority, its trusted roots, and their rotation."""

from __future__ import annotations

import click

from lateen.api import kinds
from lateen.ca.signer import RECORD
from lateen.cli.base import Group, command
from lateen.cli.connect import Target, target_options
from lateen.cli.mesh import ask_istiods, nothing_runs
from lateen.cli.output import CliError, say, wide_table
from lateen.control.wanted import ASKED, DISTRUSTED
from lateen.kit import jsons, times
from lateen.kit.jsons import Json
from lateen.kube.client import HttpClient

ENTRIES = {
    "status": ("lateen.cli.authority:status", "Show what signs certificates, and which roots are trusted."),
    "rotate": ("lateen.cli.authority:rotate", "Replace the self-signed root with a new one."),
    "distrust": ("lateen.cli.authority:distrust", "Stop trusting an old root early."),
}


@click.group(cls=Group, entries=ENTRIES)
def ca() -> None:
    """The certificate authority of the mesh."""


async def found(client: HttpClient, target: Target) -> Json:
    """The state of istiod's CA. Raises CliError if no istiod is running."""
    answers = await ask_istiods(client, "/debug/caz", target.istio_namespace, limit=1)
    if not answers:
        raise nothing_runs(target.istio_namespace)
    return next(iter(answers.values()))


@command("status")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table")
@target_options
def status(target: Target, output: str) -> None:
    """Show what signs certificates, and which roots are trusted: lateen x ca status"""
    now = target.run(lambda client: found(client, target))
    if output == "json":
        click.echo(jsons.pretty(now))
        return
    signer = now["signer"]
    say(f"Certificates are signed by {signer['fingerprint'][:16]} (Secret {now['source']}), until {signer['end']}")
    if now["next"]:
        when = f"from {now['nextAt']} on" if now["nextAt"] else "once all namespaces have its root"
        say(f"{now['next']['fingerprint'][:16]} is to sign {when}")
    if now["problem"]:
        say(f"× {now['problem']}")
    if (lists := now.get("revocation") or {}).get("lists"):
        end = f"; the first of them expires at {lists['end']}" if lists["end"] else ""
        say(f"{lists['lists']} revocation lists are in effect, with {lists['revoked']} certificates{end}")
    rows = [["ROOT", "SIGNS", "VALID UNTIL", "TRUSTED SINCE", "TRUSTED UNTIL", "SUBJECT"]]
    for r in now["roots"]:
        signs = "yes" if r["signs"] else "no"
        rows.append([r["fingerprint"][:16], signs, r["end"], r["since"] or "not yet", r["until"] or "-", r["subject"]])
    click.echo(wide_table(rows))


@command("rotate")
@target_options
def rotate(target: Target) -> None:
    """Replace the self-signed root with a new one, which is published first and signs later.

    The old root stays trusted until everything signed under it has expired.
    """

    async def work(client: HttpClient) -> None:
        if await client.get(kinds.SECRET, target.istio_namespace, "cacerts") is not None:
            raise CliError("the CA is your own: replace the contents of the Secret cacerts; istiod picks the change up")
        await found(client, target)
        await _annotate(client, target, ASKED, times.stamp_micro())

    target.run(work)
    say("✔ A new root certificate was requested; lateen x ca status shows when it starts to sign")


@command("distrust")
@click.argument("fingerprint")
@target_options
def distrust(target: Target, fingerprint: str) -> None:
    """Stop trusting an old root early: lateen x ca distrust 3f1c09ab

    From then on, workloads whose certificates were signed under it and not renewed since are rejected.
    """
    wanted = fingerprint.lower().replace(":", "")

    async def work(client: HttpClient) -> str:
        roots = (await found(client, target))["roots"]
        chosen = [r for r in roots if wanted and r["fingerprint"].startswith(wanted)]
        if len(chosen) != 1:
            raise CliError(
                f'{len(chosen) or "no"} trusted roots have a fingerprint that begins with "{fingerprint}"; there are: '
                + ", ".join(r["fingerprint"][:16] for r in roots)
            )
        if chosen[0]["until"] is None:
            raise CliError("this root is in use; replace it first (the Secret cacerts, or: lateen x ca rotate)")
        await _annotate(client, target, DISTRUSTED, chosen[0]["fingerprint"])
        return str(chosen[0]["fingerprint"])

    say(f"✔ {target.run(work)[:16]} is no longer trusted; proxies are informed within about a minute")


async def _annotate(client: HttpClient, target: Target, name: str, value: str) -> None:
    await client.patch(kinds.SECRET, target.istio_namespace, RECORD, {"metadata": {"annotations": {name: value}}})
