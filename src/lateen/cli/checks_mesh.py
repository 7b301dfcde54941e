"""Checks of the running mesh: certificates, webhooks, injection, proxies, configuration."""

from __future__ import annotations

import asyncio
import base64
from datetime import timedelta

from lateen.analysis import analyze
from lateen.analysis.snapshot import SYSTEM, Source
from lateen.api import kinds
from lateen.api.reading import PROXY, asks_for_sidecar, has_envoy, has_proxy, is_finished, is_terminating
from lateen.cli import pods
from lateen.cli.analyze import live
from lateen.cli.checking import LIMIT_S, Context, Skip, Wrong
from lateen.cli.mesh import ask_istiods
from lateen.cli.output import CliError
from lateen.dump.loaded import Loaded, loaded
from lateen.kit import certs, times
from lateen.kit.jsons import Json, dig
from lateen.kube.client import KubeError, Unreachable
from lateen.wire.node import SIDECAR

ROTATE = "lateen x ca rotate, or with a CA of your own: a new one in the Secret cacerts"
ATTACH = (
    "in the control plane's cluster: lateen remote-clusters, and lateen create-remote-secret for this cluster; here: "
    "kubectl annotate namespace istio-system topology.istio.io/controlPlaneClusters=ITS_NAME; its installation needs "
    "values.global.externalIstiod=true"
)
SOON = timedelta(days=60)
"""A root certificate that expires within this time needs attention now."""


# --- certificates ------------------------------------------------------------------------------------------------


def _pem(data: Json, key: str) -> str:
    return base64.b64decode(data.get(key, "")).decode(errors="replace")


async def root_certificate(c: Context) -> str:
    found = await c.api().get(kinds.CONFIG_MAP, c.namespace, "istio-ca-root-cert")
    pem = str(dig(found or {}, "data", "root-cert.pem", default=""))
    if not pem and c.elsewhere:
        raise Wrong("the control plane has not published its root certificate to this cluster", ATTACH)
    if not pem:
        raise Wrong("no root certificate has been distributed yet", f"kubectl logs -n {c.namespace} deploy/istiod")
    ends = [certs.validity(root)[1] for root in certs.split(pem)]
    end = ends[0]  # the first one is the root of newly signed certificates
    left = end - times.now()
    if left < timedelta(0):
        raise Wrong(f"the root certificate expired on {end:%Y-%m-%d}", ROTATE)
    if left < SOON:
        raise Wrong(f"the root certificate expires on {end:%Y-%m-%d}", ROTATE, warning=True)
    more = f", with {len(ends) - 1} others" if len(ends) > 1 else ""
    return f"valid until {end:%Y-%m-%d}{more}"


async def authority(c: Context) -> str:
    """The state of istiod's CA."""
    answers = await ask_istiods(c.api(), "/debug/caz", c.namespace, limit=1)
    if not answers:
        raise Skip("no istiod runs")
    found = next(iter(answers.values()))
    if found["problem"]:
        raise Wrong(str(found["problem"]), "correct the Secret; lateen x ca status shows what is in use", warning=True)
    end = times.parse(found["signer"]["end"])
    if end - times.now() < SOON:
        remedy = ROTATE if found["source"] != "cacerts" else "put a new intermediate into the Secret cacerts"
        raise Wrong(f"the signing certificate expires on {end:%Y-%m-%d}", remedy, warning=True)
    return f"Secret {found['source']}, until {end:%Y-%m-%d}"


async def servers_certificates(c: Context) -> str:
    """The certificates of cert-manager's Certificate objects, by their status."""
    try:
        found, _ = await c.api().list(kinds.CERTIFICATE)
    except KubeError as e:
        if e.code != 404:
            raise
        found = []
    if not found:
        raise Skip("there are no Certificates")
    bad = [(*said, f"kubectl describe certificate {_name(o)} -n {_space(o)}") for o in found if (said := _late(o))]
    for only_warning in (False, True):
        for warning, says, remedy in bad:
            if warning is only_warning:
                raise Wrong(says, remedy, warning=warning)
    return f"{len(found)} Certificates"


def _late(certificate: Json) -> tuple[bool, str] | None:
    """(whether it is only a warning, the fault of a Certificate); a renewal may take a quarter of the renewal
    period."""
    name, now = f"{_space(certificate)}/{_name(certificate)}", times.now()
    status = certificate.get("status") or {}
    ready: Json = next((c for c in status.get("conditions") or [] if c.get("type") == "Ready"), {})
    says = f": {ready['message']}" if ready.get("status") == "False" else ""
    try:
        end, due = (times.parse(str(status[k])) for k in ("notAfter", "renewalTime"))
    except (KeyError, ValueError):
        return (True, f"{name} has no certificate{says}") if says else None
    if end < now:
        return False, f"the certificate of {name} expired on {end:%Y-%m-%d}{says}"
    if now > due + (end - due) / 4:
        return True, f"the certificate of {name} expires on {end:%Y-%m-%d} and is not renewed{says}"
    return None


def _name(obj: Json) -> str:
    return str(obj["metadata"]["name"])


def _space(obj: Json) -> str:
    return str(obj["metadata"]["namespace"])


async def clusters(c: Context) -> str:
    """Each istiod's connections to the other clusters of the mesh."""
    answers = await ask_istiods(c.api(), "/debug/clusterz", c.namespace)
    others = [o for found in answers.values() for o in found if o["secretName"]]
    if not others:
        raise Skip("there is one cluster")
    for other in others:
        if other["syncStatus"] != "synced" or "problem" in other:
            says = other.get("problem") or f"it is {other['syncStatus']}"
            remedy = f"check the Secret {other['secretName']} (lateen create-remote-secret); see lateen remote-clusters"
            raise Wrong(f"cluster {other['id']}: {says}", remedy, warning=True)
    return ", ".join(sorted({str(o["id"]) for o in others}))


async def same_roots(c: Context) -> str:
    spaces, _ = await c.api().list(kinds.CONFIG_MAP)
    roots = {
        dig(m, "data", "root-cert.pem"): m["metadata"]["namespace"]
        for m in spaces
        if m["metadata"]["name"] == "istio-ca-root-cert"
    }
    if len(roots) > 1:
        raise Wrong(
            f"namespaces have different roots: {', '.join(roots.values())}",
            "wait a moment: istiod rewrites them; if it does not, kubectl logs -n istio-system deploy/istiod",
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
                if not bundle and c.elsewhere:
                    raise Wrong(f"{name} has no caBundle yet", ATTACH)
                if not bundle:
                    raise Wrong(f"{name} has no caBundle yet", "check that istiod is running: it sets the bundle")
                if wanted and bundle != wanted:
                    raise Wrong(
                        f"{name} trusts a different root", f"kubectl rollout restart -n {c.namespace} deploy/istiod"
                    )
    if not count:
        raise Wrong("no webhooks are installed", "lateen install --set profile=demo -y")
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
        n["metadata"]["name"] for n in spaces if asks_for_sidecar(dig(n, "metadata", "labels", default={}), {}, {})
    ]
    if not names:
        raise Wrong(
            "no namespace has injection enabled",
            "kubectl label namespace default istio-injection=enabled",
            warning=True,
        )
    return ", ".join(sorted(names))


def without_sidecars(sources: list[Source], root: str, only: str = "") -> list[str]:
    """``namespace/name`` of pods that would have a sidecar if they were made now, whatever label asks for it (the
    analysis looks at ``istio-injection`` alone, as Istio's does). ``only``: the one namespace that is looked at."""
    labels = {s.name: s.labels for s in sources if s.id == kinds.NAMESPACE.id}
    return [
        s.full
        for s in sources
        if s.id == kinds.POD.id
        and only in ("", s.namespace)
        and s.namespace not in (*SYSTEM, root)
        and not s.spec.get("hostNetwork")
        and asks_for_sidecar(labels.get(s.namespace, {}), s.labels, s.annotations)
        and not (has_envoy(s.obj) or has_proxy(s.obj) or is_terminating(s.obj) or is_finished(s.obj))
    ]


async def all_injected(c: Context) -> str:
    seen = await live(c.api(), LIMIT_S)
    if found := without_sidecars(seen.sources, c.namespace, c.only):
        names = ", ".join(found[:3])
        raise Wrong(f"{len(found)} pods have no sidecar: {names}", "kubectl rollout restart deployment", warning=True)
    c.pods = [
        s.obj
        for s in seen.sources
        if s.id == kinds.POD.id
        and c.only in ("", s.namespace)
        and has_envoy(s.obj)
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
    c.here()
    known = {p["proxy"] for p in c.status.get("proxies", [])}
    missing = [n for p in c.pods if (n := f"{p['metadata']['name']}.{p['metadata']['namespace']}") not in known]
    if missing:
        raise Wrong(
            f"not connected to istiod: {', '.join(missing[:3])}",
            f"lateen proxy-status; kubectl logs {missing[0].partition('.')[0]} -c istio-proxy",
        )
    return f"{len(c.pods)} of {len(c.pods)}"


async def proxies_redirecting(c: Context) -> None:
    """Pods whose rules were written by an earlier version, for IPv4 alone."""
    c.here()
    if open_ := open_by_ipv6(c.pods, c.status.get("proxies", [])):
        some = ", ".join(open_[:3])
        raise Wrong(
            f"pods whose IPv6 addresses are not redirected, so that callers bypass all policies: {some}",
            "kubectl rollout restart their workloads; with the CNI plugin, upgrade it first",
        )


def open_by_ipv6(pods: list[Json], proxies: list[Json]) -> list[str]:
    """``pod.namespace`` of the pods with an IPv6 address whose sidecar does not say that it is redirected. Pure."""
    known = {p["proxy"]: p for p in proxies}
    out = []
    for pod in pods:
        name = f"{_name(pod)}.{_space(pod)}"
        reached = any(":" in str(ip.get("ip")) for ip in dig(pod, "status", "podIPs", default=[]))
        mode = dig(pod, "metadata", "annotations", "sidecar.istio.io/interceptionMode", default="")
        found = known.get(name)
        if reached and mode != "NONE" and found and found["kind"] == SIDECAR and not found.get("ipv6Redirected"):
            out.append(name)
    return out


async def proxies_synced(c: Context) -> None:
    c.here()
    for p in c.status.get("proxies", []):
        for kind, text in p["rejections"].items():
            raise Wrong(
                f"{p['proxy']} refused {kind}: {text.strip()[:200]}",
                "correct the object named; proxies keep the last configuration that they accepted",
            )
    late = [p["proxy"] for p in c.status.get("proxies", []) if "STALE" in p["types"].values()]
    if late:
        raise Wrong(f"not yet acknowledged by: {', '.join(late[:3])}", "try again in a second", warning=True)


async def proxies_certificates(c: Context) -> str:
    """Ask every proxy, concurrently."""
    gate = asyncio.Semaphore(8)
    now = times.now()

    async def one(pod: Json) -> Loaded | None:
        async with gate:
            try:
                return loaded(await pods.ask_json(c.api(), pod, "certs"), now)
            except (KubeError, Unreachable, CliError):
                now_ = await c.api().get(kinds.POD, _space(pod), _name(pod))
                if now_ is None or is_terminating(now_) or is_finished(now_):
                    return None  # the proxy exited in the meantime
                raise

    asked = c.pods[:50]
    found = list(zip(asked, await asyncio.gather(*map(one, asked)), strict=True))
    bad = [_name(pod) for pod, has in found if has and not has.own]
    if bad:
        raise Wrong(f"certificates are not valid: {', '.join(bad[:3])}", f"kubectl delete pod {bad[0]}")
    for late in ("expired", "soon"):
        for pod, has in found:
            if has and (hosts := getattr(has, late)):
                what = "has expired" if late == "expired" else "expires soon"
                raise Wrong(
                    f"the certificate for {', '.join(hosts[:3])} that {_name(pod)} shows {what}",
                    f"replace the Secret or file that has it: lateen proxy-config secret {_name(pod)}.{_space(pod)}",
                    warning=late == "soon",
                )
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
        raise Wrong(f"unknown: this account may not read {lacking}", "use an account that may", warning=True)
    return ""
