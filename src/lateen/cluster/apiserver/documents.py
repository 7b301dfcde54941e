"""What the server reports about itself: version, health, discovery, OpenAPI."""

from __future__ import annotations

import hashlib
import json
import platform

from lateen.cluster.apiserver import answers, discovery, health, openapi
from lateen.cluster.apiserver.errors import unknown_path
from lateen.cluster.apiserver.figures import Figures
from lateen.cluster.apiserver.registry import Registry
from lateen.cluster.network import plan
from lateen.cluster.store.objects import Store
from lateen.kit import jsons
from lateen.kit.jsons import Json
from lateen.kit.later import web

VERSION = {
    "major": "1",
    "minor": "32",
    "gitVersion": "v1.32.0+lateen",
    "gitCommit": "",
    "gitTreeState": "clean",
    "buildDate": "2026-01-01T00:00:00Z",
    "goVersion": "none",
    "compiler": "cpython",
    "platform": f"linux/{ {'x86_64': 'amd64', 'aarch64': 'arm64'}.get(platform.machine(), platform.machine()) }",
}
METRICS = "text/plain; version=0.0.4; charset=utf-8"
AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
GNOSTIC = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"


class Documents:
    """Built on first use, and again when the resources have changed."""

    def __init__(self, store: Store, registry: Registry, figures: Figures, stops: health.Check) -> None:
        self._registry, self._figures = registry, figures
        self._health = health.Health(store, registry, stops)
        self._openapi: dict[str, tuple[int, bytes, str]] = {}

    def document(self, request: web.BaseRequest, path: str, parts: list[str]) -> web.Response:
        registry, accept = self._registry, request.headers.get("Accept", "")
        if path == "/version":
            return _indented(VERSION)
        if parts[0] in health.PATHS:
            excluded = request.query.getall("exclude", [])
            return self._health.answer(parts[0], "/".join(parts[1:]), dict(request.query), excluded)
        if path == "/metrics":
            return web.Response(body=self._figures.text().encode(), headers={"Content-Type": METRICS})
        if path == "/":
            return _indented({"paths": self._paths()})
        if path in ("/api", "/apis") and "as=APIGroupDiscoveryList" in accept:
            version = "v2" if "v=v2;" in accept.replace(" ", "") else "v2beta1"
            body = discovery.aggregated(registry, core=path == "/api")
            body["apiVersion"] = f"apidiscovery.k8s.io/{version}"
            return web.Response(
                body=jsons.dumps(body), headers={"Content-Type": AGGREGATED.replace("v=v2;", f"v={version};")}
            )
        if path == "/api":
            here = {"clientCIDR": "0.0.0.0/0", "serverAddress": f"{plan.NODE_IP}:{plan.API_PORT}"}
            return answers.response({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": [here]})
        if path == "/apis":
            return answers.response(
                {
                    "kind": "APIGroupList",
                    "apiVersion": "v1",
                    "groups": [_group(g, v) for g, v in registry.groups().items() if g],
                }
            )
        if parts[0] == "apis" and len(parts) == 2 and parts[1] in registry.groups():
            return answers.response(
                {"kind": "APIGroup", "apiVersion": "v1", **_group(parts[1], registry.groups()[parts[1]])}
            )
        if (parts[0] == "api" and parts[1:] == ["v1"]) or (parts[0] == "apis" and len(parts) == 3):
            group, version = ("", "v1") if parts[0] == "api" else (parts[1], parts[2])
            found = [r for r in registry.all() if r.group == group and version in r.served]
            if found:
                return answers.response(
                    {
                        "kind": "APIResourceList",
                        "apiVersion": "v1",
                        "groupVersion": f"{group}/{version}" if group else version,
                        "resources": discovery.listed(found, version),
                    }
                )
        if parts[0] == "openapi":
            return self._openapi_document(request, path, parts, accept)
        raise unknown_path()

    def _paths(self) -> list[str]:
        """Everything that is served, as kube-apiserver lists it at its root."""
        groups = [f"/apis/{g}" for g in self._registry.groups() if g]
        versions = [f"/apis/{g}/{v}" for g, found in self._registry.groups().items() if g for v in found]
        rest = ["/api", "/api/v1", "/apis", "/metrics", "/openapi/v2", "/openapi/v3", "/version"]
        return sorted([*groups, *versions, *rest, *self._health.paths()])

    def _openapi_document(self, request: web.BaseRequest, path: str, parts: list[str], accept: str) -> web.Response:
        registry = self._registry
        kind = "application/json"
        key = path
        if path == "/openapi/v2" and "proto-openapi" in accept:
            kind, key = GNOSTIC, path + "+pb"
        generation, body, tag = self._openapi.get(key, (-1, b"", ""))
        if generation != registry.generation:
            if key == "/openapi/v2":
                body = jsons.dumps(openapi.v2(registry))
            elif key == "/openapi/v2+pb":
                body = openapi.v2_protobuf(registry)
            elif path == "/openapi/v3":
                body = jsons.dumps(openapi.v3_index(registry))
            else:
                group, version = (
                    ("", parts[3])
                    if parts[2:3] == ["api"] and len(parts) == 4
                    else ((parts[3], parts[4]) if len(parts) == 5 else ("", ""))
                )
                document = openapi.v3(registry, group, version)
                if document is None:
                    raise unknown_path()
                body = jsons.dumps(document)
            tag = hashlib.sha512(body).hexdigest().upper()
            self._openapi[key] = (registry.generation, body, tag)
        headers = {"Content-Type": kind, "Etag": f'"{tag}"', "Vary": "Accept"}
        if "hash" in request.query:
            headers["Cache-Control"] = "public, immutable"
        if tag in request.headers.get("If-None-Match", ""):
            return web.Response(status=304, headers=headers)
        return web.Response(body=body, headers=headers)


def _indented(obj: Json) -> web.Response:
    """As kube-apiserver writes what people look at."""
    return web.Response(text=json.dumps(obj, indent=2), content_type=answers.CONTENT)


def _group(group: str, versions: list[str]) -> Json:
    listed = [{"groupVersion": f"{group}/{v}", "version": v} for v in versions]
    return {"name": group, "versions": listed, "preferredVersion": listed[0]}
