"""What the server reports about itself: version, health, discovery, OpenAPI."""

from __future__ import annotations

import platform

from lateen.cluster.apiserver import answers, discovery, openapi
from lateen.cluster.apiserver.errors import unknown_path
from lateen.cluster.apiserver.registry import Registry
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
AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
GNOSTIC = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"


class Documents:
    """Built on first use, and again when the resources have changed."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._openapi: dict[str, tuple[int, bytes]] = {}

    def document(self, request: web.BaseRequest, path: str, parts: list[str]) -> web.Response:
        registry, accept = self._registry, request.headers.get("Accept", "")
        if path == "/version":
            return answers.response(VERSION)
        if path in ("/healthz", "/livez", "/readyz"):
            verbose = "verbose" in request.query
            return web.Response(text=f"[+]ping ok\n{path[1:]} check passed\n" if verbose else "ok")
        if path in ("/api", "/apis") and "as=APIGroupDiscoveryList" in accept:
            version = "v2" if "v=v2;" in accept.replace(" ", "") else "v2beta1"
            body = discovery.aggregated(registry, core=path == "/api")
            body["apiVersion"] = f"apidiscovery.k8s.io/{version}"
            return web.Response(
                body=jsons.dumps(body), headers={"Content-Type": AGGREGATED.replace("v=v2;", f"v={version};")}
            )
        if path == "/api":
            return answers.response({"kind": "APIVersions", "versions": ["v1"]})
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
            return self._openapi_document(path, parts, accept, "hash" in request.query)
        raise unknown_path()

    def _openapi_document(self, path: str, parts: list[str], accept: str, hashed: bool) -> web.Response:
        registry = self._registry
        kind = "application/json"
        key = path
        if path == "/openapi/v2" and "proto-openapi" in accept:
            kind, key = GNOSTIC, path + "+pb"
        generation, body = self._openapi.get(key, (-1, b""))
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
            self._openapi[key] = (registry.generation, body)
        headers = {"Content-Type": kind}
        if hashed:
            headers["Cache-Control"] = "public, immutable"
        return web.Response(body=body, headers=headers)


def _group(group: str, versions: list[str]) -> Json:
    listed = [{"groupVersion": f"{group}/{v}", "version": v} for v in versions]
    return {"name": group, "versions": listed, "preferredVersion": listed[0]}
