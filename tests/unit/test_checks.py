"""What `lateen check` says of istiod's Deployments."""

import asyncio
from types import SimpleNamespace

import pytest

from lateen.analysis.snapshot import Source
from lateen.cli.checking import Wrong
from lateen.cli.checks import istiods_ready
from lateen.cli.checks_mesh import open_by_ipv6, proxies_redirecting, without_sidecars


def istiod(name="istiod", ready=1, wanted=1):
    return {"metadata": {"name": name}, "spec": {"replicas": wanted}, "status": {"readyReplicas": ready}}


def test_a_control_plane_of_a_revision_alone_is_a_control_plane():
    assert istiods_ready([istiod("istiod-canary", 2, 2)], "istio-system") == "2 of 2 pods"


def test_every_revision_counts():
    both = [istiod(), istiod("istiod-canary", 0, 1)]
    with pytest.raises(Wrong, match="0 of 1 pods of istiod-canary are ready"):
        istiods_ready(both, "istio-system")
    assert (
        istiods_ready([istiod(), istiod("istiod-canary")], "x") == "1 of 1 pods of istiod, 1 of 1 pods of istiod-canary"
    )


def test_none_at_all_is_told_with_the_remedy():
    with pytest.raises(Wrong, match="there is no istiod in namespace istio-system"):
        istiods_ready([], "istio-system")


def test_pods_without_a_sidecar_are_named_whatever_label_asks_for_one():
    """A tag that was gone for a moment: pods of namespaces with istio.io/rev started without."""
    space, container = {"apiVersion": "v1", "kind": "Namespace"}, {"name": "c", "image": "i"}
    spaces = [
        space | {"metadata": {"name": name, "labels": labels}}
        for name, labels in (("tagged", {"istio.io/rev": "prod"}), ("old", {"istio-injection": "enabled"}), ("out", {}))
    ]

    def pod(where, name, *containers, **more):
        meta = {"name": name, "namespace": where, "labels": more.pop("labels", {})}
        spec = {"containers": [{"name": c, "image": "i"} for c in ("c", *containers)], **more}
        return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}

    pods = [
        pod("tagged", "bare"),
        pod("tagged", "whole", "istio-proxy"),
        pod("tagged", "native", initContainers=[container | {"name": "istio-proxy"}]),
        pod("tagged", "never", labels={"sidecar.istio.io/inject": "false"}),
        pod("tagged", "host", hostNetwork=True),
        pod("old", "bare"),
        pod("out", "bare"),
        pod("out", "asks", labels={"sidecar.istio.io/inject": "true"}),
        pod("istio-system", "asks", labels={"istio.io/rev": "prod"}),
    ]
    sources = [Source(o) for o in (*spaces, *pods)]
    assert without_sidecars(sources, "istio-system") == ["tagged/bare", "old/bare", "out/asks"]
    assert without_sidecars(sources, "istio-system", "old") == ["old/bare"]


def test_pods_with_ipv6_addresses_that_an_earlier_version_has_redirected_are_named():
    def pod(name, *addresses, **annotations):
        notes = {f"sidecar.istio.io/{k}": v for k, v in annotations.items()}
        meta = {"name": name, "namespace": "shop", "annotations": notes}
        return {"metadata": meta, "status": {"podIPs": [{"ip": a} for a in addresses]}}

    def proxy(name, redirected, kind="sidecar"):
        return {"proxy": f"{name}.shop", "kind": kind, "ipv6Redirected": redirected}

    pods = [
        pod("old", "10.0.0.1", "fd00::1"),
        pod("new", "10.0.0.2", "fd00::2"),
        pod("plain", "10.0.0.3"),
        pod("gateway", "10.0.0.4", "fd00::4"),
        pod("never", "10.0.0.5", "fd00::5", interceptionMode="NONE"),
        pod("away", "fd00::6"),
    ]
    proxies = [proxy("old", False), proxy("new", True), proxy("plain", False), proxy("gateway", False, "router")]
    known = [*proxies, proxy("never", False)]
    assert open_by_ipv6(pods, known) == ["old.shop"]
    context = SimpleNamespace(here=lambda: None, pods=pods, status={"proxies": known})
    with pytest.raises(Wrong, match=r"^pods whose IPv6 addresses .* so that callers bypass all policies: old.shop$"):
        asyncio.run(proxies_redirecting(context))
