"""lateen x precheck, x config, x workload; lateen upgrade, verify-install, profile, manifest diff."""

from __future__ import annotations

import asyncio
import difflib
from pathlib import Path
from typing import Any

import click

from lateen import __version__
from lateen.analysis import Snapshot, Source, analyze
from lateen.analysis.snapshot import Message, message
from lateen.api import kinds
from lateen.cli.analyze import line
from lateen.cli.base import Group, command
from lateen.cli.connect import Target, target_options
from lateen.cli.install import carry_out, file_option, operator, set_option
from lateen.cli.output import BAD_DATA, FINDINGS, USAGE, CliError, say, wide_table
from lateen.install import manifests, profiles
from lateen.kit import jsons, yamldoc
from lateen.kit.files import write_atomic
from lateen.kit.jsons import Json, dig
from lateen.kube.apply import kind_of
from lateen.kube.client import HttpClient, KubeError
from lateen.wire import ports

MINIMUM = (1, 21)
"""Kubernetes' first version with EndpointSlices of version v1, which istiod reads."""
NEEDED = (
    ("", "namespaces", ""),
    ("", "services", manifests.NAMESPACE),
    ("", "configmaps", manifests.NAMESPACE),
    ("", "secrets", manifests.NAMESPACE),
    ("", "serviceaccounts", manifests.NAMESPACE),
    ("apps", "deployments", manifests.NAMESPACE),
    ("rbac.authorization.k8s.io", "clusterroles", ""),
    ("rbac.authorization.k8s.io", "clusterrolebindings", ""),
    ("apiextensions.k8s.io", "customresourcedefinitions", ""),
    ("admissionregistration.k8s.io", "mutatingwebhookconfigurations", ""),
    ("admissionregistration.k8s.io", "validatingwebhookconfigurations", ""),
)

GATEWAY_API = ("Gateway", "GatewayClass", "HTTPRoute", "ReferenceGrant")


async def version_findings(client: HttpClient) -> list[Message]:
    found = await client.call("GET", "/version")
    digits = [int("".join(c for c in str(found.get(k, "0")) if c.isdigit()) or 0) for k in ("major", "minor")]
    if tuple(digits) >= MINIMUM:
        return []
    source = Source({"kind": "Kubernetes", "metadata": {"name": "version"}})
    return [message("IST0142", source, found.get("gitVersion"), ".".join(map(str, MINIMUM)))]


async def permission_findings(client: HttpClient) -> list[Message]:
    async def one(group: str, plural: str, namespace: str) -> Message | None:
        attributes = {"group": group, "resource": plural, "verb": "create", "namespace": namespace}
        review = await client.call(
            "POST",
            "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
            {
                "apiVersion": "authorization.k8s.io/v1",
                "kind": "SelfSubjectAccessReview",
                "spec": {"resourceAttributes": attributes},
            },
        )
        if dig(review, "status", "allowed"):
            return None
        source = Source({"kind": "Permission", "metadata": {"name": plural, "namespace": namespace}})
        return message("IST0141", source, plural, dig(review, "status", "reason", default="not allowed"))

    found = await asyncio.gather(*(one(*n) for n in NEEDED))
    return [m for m in found if m]


def gateway_api_findings(crds: list[Source]) -> list[Message]:
    """Definitions of Kubernetes' Gateway API that serve no version that a mesh can use, now or for much longer."""
    out = []
    for crd in crds:
        if crd.spec.get("group") != "gateway.networking.k8s.io":
            continue
        if dig(crd.spec, "names", "kind") not in GATEWAY_API:
            continue
        served = [str(v.get("name")) for v in crd.spec.get("versions") or [] if v.get("served", True)]
        if not {"v1", "v1beta1"} & set(served):
            out.append(message("IST0156", crd, ",".join(served) or "none", "v1beta1"))
        elif "v1" not in served and dig(crd.spec, "names", "kind") != "ReferenceGrant":
            out.append(message("IST0172", crd, ",".join(served), "v1"))
    return out


@command("precheck")
@target_options
def precheck(target: Target) -> None:
    """Whether the mesh can be installed or upgraded here."""

    async def work(client: HttpClient) -> list[Message]:
        try:
            crds, _ = await client.list(kinds.CRD)
        except KubeError:
            crds = []
        sources = [Source({"kind": "CustomResourceDefinition", **c}) for c in crds]
        return [
            *await version_findings(client),
            *await permission_findings(client),
            *gateway_api_findings(sources),
            *analyze(Snapshot(sources), ["k8sgateway.CRDVersionAnalyzer", "deprecation.DeprecationAnalyzer"]),
        ]

    found = target.run(work)
    for m in found:
        click.echo(line(m, False))
    if any(m.kind.level == "Error" for m in found):
        raise CliError("Issues found when checking the cluster. Istio may not be safe to install or upgrade.", FINDINGS)
    if not found:
        click.echo("✔ No issues found when checking the cluster. Istio is safe to install or upgrade!")
    click.echo("  To get started: lateen install --set profile=demo -y")


@click.group(cls=Group, entries={"list": ("lateen.cli.setup:config_list", "The options that have defaults.")})
def config() -> None:
    """The defaults of this command's options."""


@command("list")
@target_options
def config_list(target: Target) -> None:
    """The options that have defaults, and where they come from."""
    from lateen.cli.connect import path_of

    try:
        where = str(path_of(target.kubeconfig))
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


# --- workloads outside -------------------------------------------------------------------------------------------


@click.group(
    cls=Group,
    entries={
        "group": ("lateen.cli.setup:workload_group", "Groups of workloads of one kind."),
        "entry": ("lateen.cli.setup:workload_entry", "One workload."),
    },
)
def workload() -> None:
    """Workloads outside of Kubernetes."""


@click.group(cls=Group, entries={"create": ("lateen.cli.setup:group_create", "Print a WorkloadGroup.")})
def workload_group() -> None:
    """Groups of workloads of one kind."""


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
    numbers = {k: int(v) if v.isdigit() else v for k, v in _pairs(ports, "--ports").items()}
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


@click.group(cls=Group, entries={"configure": ("lateen.cli.setup:entry_configure", "Files for a machine that joins.")})
def workload_entry() -> None:
    """One workload."""


@command("configure")
@click.option("-f", "--file", "file", type=click.Path(exists=True, dir_okay=False), help="A WorkloadGroup.")
@click.option("--name", default="", help="A WorkloadGroup of the cluster.")
@click.option("-o", "--output", required=True, type=click.Path(file_okay=False), help="The directory to write into.")
@click.option("--tokenDuration", "seconds", default=3600, help="How long the token is valid, in seconds.")
@click.option("--ingressIP", "address", default="", help="Where the machine reaches istiod; the Service's otherwise.")
@target_options
def entry_configure(target: Target, file: str | None, name: str, output: str, seconds: int, address: str) -> None:
    """Files for a machine that joins the mesh: its environment, token, root certificate and hosts.

    On the machine, cluster.env is pilot-agent's environment, istio-token belongs to /var/run/secrets/tokens,
    root-cert.pem to /var/run/secrets/istio, and the line in hosts to /etc/hosts.
    """
    if bool(file) == bool(name):
        raise CliError("say which WorkloadGroup: with --file FILE or with --name NAME", USAGE)

    async def work(client: HttpClient) -> dict[str, str]:
        group = _group_of(Path(file).read_text()) if file else await client.get(
            kinds.WORKLOAD_GROUP, target.namespace, name
        )  # fmt: skip
        if group is None:
            raise CliError(f'there is no WorkloadGroup "{name}" in namespace "{target.namespace}"')
        return await _machine(client, group, target, seconds, address)

    directory = Path(output)
    directory.mkdir(parents=True, exist_ok=True)
    for path, text in target.run(work).items():
        write_atomic(directory / path, text, 0o600)
    say(f"✔ Files for a machine written to {directory}")


def _group_of(text: str) -> Json:
    found = [d for d in yamldoc.objects(text) if d.get("kind") == "WorkloadGroup"]
    if len(found) != 1:
        raise CliError(f"the file must have one WorkloadGroup, it has {len(found)}", BAD_DATA)
    return found[0]


async def _machine(client: HttpClient, group: Json, target: Target, seconds: int, address: str) -> dict[str, str]:
    """File name -> its content."""
    name = group["metadata"]["name"]
    namespace = group["metadata"].get("namespace") or target.namespace
    account = dig(group, "spec", "template", "serviceAccount", default="") or "default"
    root = await client.get(kinds.CONFIG_MAP, namespace, "istio-ca-root-cert")
    istiod = await client.get(kinds.SERVICE, target.istio_namespace, "istiod")
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
    host = f"istiod.{target.istio_namespace}.svc"
    environment = {
        "CA_ADDR": f"{host}:{ports.XDS}",
        "ISTIO_META_AUTO_REGISTER_GROUP": name,
        "ISTIO_META_CLUSTER_ID": "Kubernetes",
        "ISTIO_META_WORKLOAD_NAME": name,
        "POD_NAMESPACE": namespace,
        "SERVICE_ACCOUNT": account,
    }
    return {
        "cluster.env": "".join(f"{k}='{v}'\n" for k, v in environment.items()),
        "istio-token": str(token["status"]["token"]),
        "root-cert.pem": str(root["data"]["root-cert.pem"]),
        "mesh.yaml": yamldoc.dump({"defaultConfig": {"discoveryAddress": f"{host}:{ports.XDS}"}}),
        "hosts": f"{address or istiod['spec']['clusterIP']} {host}\n",
    }


# --- installations -----------------------------------------------------------------------------------------------


@command("upgrade")
@file_option
@set_option
@click.option("-y", "--skip-confirmation", "yes", is_flag=True, help="Do not ask.")
@click.option("--readiness-timeout", default=120.0, help="Seconds to wait for each part.")
@target_options
def upgrade(
    target: Target, files: tuple[str, ...], settings: tuple[str, ...], yes: bool, readiness_timeout: float
) -> None:
    """Bring an installation to this command's version; proxies follow when their pods are made anew."""
    found = operator(files, settings)

    async def running(client: HttpClient) -> str:
        istiod = await client.get(kinds.DEPLOYMENT, manifests.NAMESPACE, "istiod")
        if istiod is None:
            raise CliError("there is no mesh to upgrade; install it with: lateen install --set profile=demo")
        return str(dig(istiod, "spec", "template", "spec", "containers", 0, "image", default="")).rpartition(":")[2]

    before = target.run(running)
    if not yes:
        click.confirm(f"This will upgrade {before} to {__version__}. Proceed?", abort=True, err=True)
    carry_out(target, found, readiness_timeout)
    say(
        f"✔ Upgrade complete ({before} -> {__version__}); new sidecars: kubectl rollout restart deployment -n NAMESPACE"
    )


@command("verify-install")
@file_option
@set_option
@target_options
def verify_install(target: Target, files: tuple[str, ...], settings: tuple[str, ...]) -> None:
    """Whether everything of an installation is there and ready."""
    chosen = settings if settings or files else ("profile=default",)
    parts = manifests.render(operator(files, chosen))

    async def work(client: HttpClient) -> list[tuple[str, str, str]]:
        out = []
        for obj in (o for part in parts for o in part.objects):
            kind, meta = kind_of(obj), obj["metadata"]
            found = await client.get(kind, meta.get("namespace", ""), meta["name"])
            name = f"{meta['name']}.{meta['namespace']}" if meta.get("namespace") else meta["name"]
            wrong = "not found" if found is None else ""
            if found is not None and kind is kinds.DEPLOYMENT:
                ready, wanted = (
                    dig(found, "status", "readyReplicas", default=0),
                    dig(found, "spec", "replicas", default=1),
                )
                wrong = "" if ready >= wanted else f"{ready} of {wanted} pods are ready"
            out.append((kind.kind, name, wrong))
        return out

    checked = target.run(work)
    for kind, name, wrong in checked:
        click.echo(f"{'✘' if wrong else '✔'} {kind}: {name} {wrong or 'checked successfully'}")
    crds = sum(kind == "CustomResourceDefinition" for kind, *_ in checked)
    deployments = sum(kind == "Deployment" for kind, *_ in checked)
    click.echo(f"Checked {crds} custom resource definitions\nChecked {deployments} Istio Deployments")
    bad = [name for _, name, wrong in checked if wrong]
    if bad:
        raise CliError(f"{len(bad)} parts of the installation are missing or not ready; mend it with: lateen install")
    click.echo("✔ Istio is installed and verified successfully")


@click.group(
    cls=Group,
    entries={
        "diff": ("lateen.cli.setup:profile_diff", "What two profiles differ in."),
        "dump": ("lateen.cli.setup:profile_dump", "A profile as an IstioOperator file."),
        "list": ("lateen.cli.setup:profile_list", "The profiles."),
    },
)
def profile() -> None:
    """Configuration profiles."""


@command("list")
def profile_list() -> None:
    """The profiles."""
    click.echo("Istio configuration profiles:\n" + "\n".join(f"    {name}" for name in sorted(profiles.PROFILES)))


def _profile(name: str, files: tuple[str, ...] = ()) -> str:
    found = operator(files, (f"profile={name}",) if name else ())
    return yamldoc.dump({"apiVersion": profiles.API_VERSION, "kind": "IstioOperator", "spec": found.spec})


@command("dump")
@click.argument("name", default="")
@file_option
@click.option("-o", "--output", type=click.Choice(["yaml", "json"]), default="yaml")
def profile_dump(name: str, files: tuple[str, ...], output: str) -> None:
    """A profile as an IstioOperator file: lateen profile dump demo"""
    text = _profile(name, files)
    click.echo(jsons.pretty(yamldoc.load(text)) if output == "json" else text.rstrip())


@command("diff")
@click.argument("first")
@click.argument("second")
def profile_diff(first: str, second: str) -> None:
    """What two profiles differ in: lateen profile diff default demo"""
    _differ(_profile(first), _profile(second), first, second, "The difference between profiles:")


def _differ(a: str, b: str, name_a: str, name_b: str, title: str) -> None:
    lines = list(difflib.unified_diff(a.splitlines(), b.splitlines(), name_a, name_b, lineterm=""))
    if not lines:
        click.echo("No differences")
        return
    click.echo("\n".join([title, *lines]))
    raise click.exceptions.Exit(1)


@command("diff")
@click.argument("first")
@click.argument("second")
def manifest_diff(first: str, second: str) -> None:
    """What two manifests differ in, whatever order their objects have."""
    texts = []
    for name in (first, second):
        try:
            objects = list(yamldoc.objects(Path(name).read_text()))
        except OSError as e:
            raise CliError(f"{name}: {e.strerror}", BAD_DATA) from None
        except (yamldoc.YamlError, UnicodeDecodeError) as e:
            raise CliError(f"{name}: {e}", BAD_DATA) from e
        by = {
            f"{o.get('kind')}:{dig(o, 'metadata', 'namespace', default='')}:{dig(o, 'metadata', 'name')}": o
            for o in objects
        }
        texts.append("".join(f"# {k}\n{yamldoc.dump(jsons.loads(jsons.canonical(by[k])))}" for k in sorted(by)))
    _differ(texts[0], texts[1], first, second, "Differences in manifests are:")
