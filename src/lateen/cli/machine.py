"""lateen x workload, lateen x config."""

from __future__ import annotations

import ipaddress
import os
import re
import shlex
from pathlib import Path
from typing import Any

import click

from lateen.api import kinds
from lateen.api.domain import TRUST_DOMAIN
from lateen.api.reading import cluster_name, injector_values
from lateen.cli.base import Group, command
from lateen.cli.connect import Target, target_options
from lateen.cli.output import BAD_DATA, USAGE, CliError, say, wide_table
from lateen.kit import jsons, yamldoc
from lateen.kit.digits import digits
from lateen.kit.files import write_atomic
from lateen.kit.jsons import Json, dig
from lateen.kube.client import HttpClient, KubeError
from lateen.wire import ports
from lateen.wire.revision import Revision


@click.group(cls=Group, entries={"list": ("lateen.cli.machine:config_list", "List the options that have defaults.")})
def config() -> None:
    """Show the defaults of this command's options."""


@command("list")
@target_options
def config_list(target: Target) -> None:
    """List the options that have defaults, and where they come from."""
    from lateen.cli.connect import paths_of

    try:
        where = os.pathsep.join(map(str, paths_of(target.kubeconfig)))
    except CliError:
        where = "<none>"
    rows = [
        ["FLAG", "VALUE", "FROM"],
        ["istioNamespace", target.istio_namespace, "default"],
        ["kubeconfig", where, "$KUBECONFIG, the embedded cluster, ~/.kube/config"],
        ["namespace", target.namespace, "the kubeconfig's context"],
        ["prefer-experimental", "false", "default"],
    ]
    click.echo(wide_table(rows))


MACHINE = Path(__file__).parents[1] / "samples" / "machine"
SSH = 22
"""The port by which a machine is administered, whatever becomes of its sidecar."""


# --- workloads outside of Kubernetes --------------------------------------------------------------------------------


@click.group(
    cls=Group,
    entries={
        "group": ("lateen.cli.machine:workload_group", "Manage groups of workloads of one kind."),
        "entry": ("lateen.cli.machine:workload_entry", "One workload."),
    },
)
def workload() -> None:
    """Configure workloads outside of Kubernetes."""


@click.group(cls=Group, entries={"create": ("lateen.cli.machine:group_create", "Print a WorkloadGroup.")})
def workload_group() -> None:
    """Manage groups of workloads of one kind."""


def _pairs(given: tuple[str, ...], option: str) -> dict[str, str]:
    out = {}
    for part in ",".join(given).split(",") if given else ():
        key, found, value = part.partition("=")
        if not found:
            raise CliError(f"{option} {part}: write it as name=value", USAGE)
        out[key] = value
    return out


@command("create")
@click.option("--name", required=True)
@click.option("-l", "--labels", multiple=True, help="a=b,c=d")
@click.option("-a", "--annotations", multiple=True, help="a=b,c=d")
@click.option("-p", "--ports", multiple=True, help="http=8080,…")
@click.option("-s", "--serviceAccount", "account", default="default")
@target_options
def group_create(target: Target, name: str, labels: Any, annotations: Any, ports: Any, account: str) -> None:
    """Print a WorkloadGroup, for kubectl apply."""
    numbers = {k: int(v) if digits(v) else v for k, v in _pairs(ports, "--ports").items()}
    spec: Json = {
        "metadata": {"annotations": _pairs(annotations, "--annotations"), "labels": _pairs(labels, "--labels")},
        "template": {"ports": numbers, "serviceAccount": account},
    }
    obj = {
        "apiVersion": "networking.istio.io/v1",
        "kind": "WorkloadGroup",
        "metadata": {"name": name, "namespace": target.namespace},
        "spec": spec,
    }
    from lateen.api import validate

    wrong = validate.problems(obj)
    if wrong:
        raise CliError(f"{wrong[0][0]}: {wrong[0][1]}", BAD_DATA)
    click.echo(yamldoc.dump(obj), nl=False)


@click.group(
    cls=Group,
    entries={
        "configure": (
            "lateen.cli.machine:entry_configure",
            "Write the files that a machine needs to join the mesh.",
        )
    },
)
def workload_entry() -> None:
    """One workload."""


@command("configure")
@click.option("-f", "--file", "file", type=click.Path(exists=True, dir_okay=False), help="A WorkloadGroup.")
@click.option("--name", default="", help="A WorkloadGroup in the cluster.")
@click.option("-o", "--output", required=True, type=click.Path(file_okay=False), help="The directory to write to.")
@click.option("--tokenDuration", "seconds", default=3600, help="The token's lifetime in seconds.")
@click.option(
    "--ingressIP",
    "address",
    default="",
    help="The address at which the machine reaches istiod; by default, that of its Service.",
)
@click.option("--clusterID", "cluster", default="", help="The cluster that the machine belongs to.")
@click.option(
    "--autoregister/--no-autoregister", default=True, help="Whether istiod creates the machine's WorkloadEntry."
)
@click.option("--capture-dns/--no-capture-dns", "dns", default=False, help="Whether the proxy answers DNS queries.")
@click.option("-r", "--revision", default="", help="The control plane that the machine connects to.")
@target_options
def entry_configure(
    target: Target,
    file: str | None,
    name: str,
    output: str,
    seconds: int,
    address: str,
    cluster: str,
    autoregister: bool,
    dns: bool,
    revision: str,
) -> None:
    """Write the files that a machine needs to join the mesh: environment, token, root certificate and hosts.

    On the machine, add the line in hosts to /etc/hosts and run sidecar.sh as root, or copy the directory to
    /etc/istio/machine and start the systemd unit lateen-sidecar.service. Both need pilot-agent (pip install lateen).
    """
    if bool(file) == bool(name):
        raise CliError("name a WorkloadGroup with --file FILE or with --name NAME", USAGE)

    async def work(client: HttpClient) -> dict[str, str]:
        group = _group_of(Path(file).read_text()) if file else await client.get(
            kinds.WORKLOAD_GROUP, target.namespace, name
        )  # fmt: skip
        if group is None:
            raise CliError(f'there is no WorkloadGroup "{name}" in namespace "{target.namespace}"')
        _check(group)
        files, environment = await _machine(client, group, target, seconds, address, _revision(revision))
        if cluster:
            environment["ISTIO_META_CLUSTER_ID"] = cluster
        if not autoregister:
            del environment["ISTIO_META_AUTO_REGISTER_GROUP"]
        if dns:
            environment["ISTIO_META_DNS_CAPTURE"] = "true"
        return files | {"cluster.env": sourced(environment)}

    directory = Path(output)
    directory.mkdir(parents=True, exist_ok=True)
    for path, text in target.run(work).items():
        write_atomic(directory / path, text, 0o600)
    say(f"✔ Files for a machine written to {directory}")


def _group_of(text: str) -> Json:
    found = [d for d in yamldoc.objects(text) if kinds.of(d) is kinds.WORKLOAD_GROUP]
    if len(found) != 1:
        raise CliError(f"the file must have one WorkloadGroup, it has {len(found)}", BAD_DATA)
    return found[0]


_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
"""RFC 1123: the name of an object."""
_VALUE = re.compile(r"([A-Za-z0-9]([-\w.]{0,61}[A-Za-z0-9])?)?", re.ASCII)
"""The value of a label."""


def _check(group: Json) -> None:
    """A group in a file has not been seen by the API server, and one in the cluster may be older than its rules, while
    root reads what is written of it to the machine. Raises CliError."""
    from lateen.api import validate

    named, of_label = "must be the name of an object", "must be the value of a label"
    form = {
        "metadata.name": (_NAME, named),
        "metadata.namespace": (_NAME, named),
        "spec.template.serviceAccount": (_NAME, named),
        "spec.template.network": (_VALUE, of_label),
    }
    wrong = [f"{path}: {says}" for path, says in validate.problems(group)]
    for path, (pattern, says) in form.items() if not wrong else ():
        text = dig(group, *path.split("."), default="")
        if (text or path == "metadata.name") and not pattern.fullmatch(str(text)):
            wrong.append(f'{path}: "{text}" {says}')
    if wrong:
        raise CliError(f"the WorkloadGroup cannot be used: {wrong[0]}", BAD_DATA)


def _reached_at(address: str, istiod: Json) -> str:
    """The address for the line in the machine's hosts. Raises CliError."""
    found = address or str(dig(istiod, "spec", "clusterIP", default=""))
    try:
        return str(ipaddress.ip_address(found))
    except ValueError:
        says = f'"{found}" is not an IP address' if address else "the Service of istiod has no address of its own"
        raise CliError(f"{says}; give the one at which the machine reaches istiod: --ingressIP 192.0.2.1") from None


def sourced(environment: dict[str, str]) -> str:
    """Variables as lines that a shell and systemd's EnvironmentFile read alike. Raises CliError."""
    for name, value in environment.items():
        if any(c in value for c in "\n\r\0"):
            raise CliError(f"{name}: {value!r} is not one line of text", BAD_DATA)
    return "".join(f"{name}={shlex.quote(value)}\n" for name, value in environment.items())


def _revision(name: str) -> Revision:
    try:
        return Revision(name) if name else Revision()
    except ValueError as e:
        raise CliError(f"--revision: {e}", USAGE) from None


async def _machine(
    client: HttpClient, group: Json, target: Target, seconds: int, address: str, revision: Revision
) -> tuple[dict[str, str], dict[str, str]]:
    """(file name -> contents, the agent's environment)"""
    name = group["metadata"]["name"]
    namespace = group["metadata"].get("namespace") or target.namespace
    account = dig(group, "spec", "template", "serviceAccount", default="") or "default"
    root = await client.get(kinds.CONFIG_MAP, namespace, "istio-ca-root-cert")
    istiod = await client.get(kinds.SERVICE, target.istio_namespace, revision.istiod)
    values = injector_values(await client.get(kinds.CONFIG_MAP, target.istio_namespace, revision.injector))
    if root is None or istiod is None:
        raise CliError("there is no mesh in this cluster; install it with: lateen install --set profile=demo")
    body = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"audiences": ["istio-ca"], "expirationSeconds": seconds},
    }
    try:
        token = await client.request(kinds.SERVICE_ACCOUNT, namespace, account, "token", body)
    except KubeError as e:
        raise CliError(f'no token for the service account "{account}" of namespace "{namespace}": {e}') from None
    host = f"{revision.istiod}.{target.istio_namespace}.svc"
    template, labels = dig(group, "spec", "template", default={}), dig(group, "spec", "metadata", "labels", default={})
    mesh = await client.get(kinds.CONFIG_MAP, target.istio_namespace, revision.config_map)
    domain = (yamldoc.load(dig(mesh, "data", "mesh", default="")) or {}).get("trustDomain") or TRUST_DOMAIN
    environment = {
        "CA_ADDR": f"{host}:{ports.XDS}",
        "ISTIO_INBOUND_PORTS": "*",
        "ISTIO_LOCAL_EXCLUDE_PORTS": ",".join(map(str, (SSH, *ports.EXCLUDED_INBOUND))),
        "ISTIO_METAJSON_LABELS": jsons.dumps({**labels, **(template.get("labels") or {})}).decode(),
        "ISTIO_META_AUTO_REGISTER_GROUP": name,
        "ISTIO_META_CLUSTER_ID": cluster_name(values),
        "ISTIO_META_NETWORK": str(template.get("network") or dig(values, "global", "network", default="")),
        "ISTIO_META_WORKLOAD_NAME": name,
        "ISTIO_SERVICE_CIDR": "*",
        "POD_NAMESPACE": namespace,
        "SERVICE_ACCOUNT": account,
        "TRUST_DOMAIN": domain,
    }
    files = {
        **{p.name: p.read_text() for p in MACHINE.iterdir()},
        "istio-token": str(token["status"]["token"]),
        "root-cert.pem": str(root["data"]["root-cert.pem"]),
        "mesh.yaml": yamldoc.dump({"defaultConfig": {"discoveryAddress": f"{host}:{ports.XDS}"}}),
        "hosts": f"{_reached_at(address, istiod)} {host}\n",
    }
    return files, {k: v for k, v in environment.items() if v}
