"""AuthorizationPolicies in, Envoy filters out, compared as messages: same meaning, not the same bytes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from envoy.config.listener.v3 import listener_components_pb2 as lc
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm
from google.protobuf import json_format

from lateen.api import kinds
from lateen.api import objects as o
from lateen.api.config import decode
from lateen.api.mesh import ExtensionProvider
from lateen.api.mesh.provider_rules import can_be_asked
from lateen.api.security import AuthorizationPolicy
from lateen.kit import yamldoc
from lateen.xds.authz import filters, matchers


def cases(folder: Path) -> Iterator[tuple[str, str | None]]:
    for case in json.loads((folder / "index.json").read_text())["cases"]:
        yield f"{case['proto']}/{case['name']}", _run(folder / "testdata", case)


def _policies(path: Path) -> tuple:
    out = []
    for obj in yamldoc.objects(path.read_text()):
        meta = obj["metadata"]
        dry = str((meta.get("annotations") or {}).get("istio.io/dry-run", "")).lower() == "true"
        spec = decode(AuthorizationPolicy, obj.get("spec") or {})
        ref = kinds.AUTHORIZATION_POLICY.ref(meta.get("namespace", "foo"), meta["name"])
        out.append(o.Resource(ref, str(path), "", "", spec, dry_run=dry))
    return tuple(out)


def _run(folder: Path, case: dict) -> str | None:
    policies = _policies(folder / case["input"])
    tcp = case["proto"] == "tcp"
    domains = tuple(case.get("trustDomains") or ())
    given = (case.get("meshConfig") or {}).get("extensionProviders") or []
    providers = can_be_asked(decode(ExtensionProvider, p) for p in given)
    if case["isCustomBuilder"]:
        got = filters.custom(policies, tcp, providers, domains)
    else:
        got = filters.plain(policies, tcp, domains)
    wanted = []
    for name in case["want"]:
        message = lc.Filter() if tcp else hcm.HttpFilter()
        json_format.ParseDict(yamldoc.load((folder / name).read_text()), message)
        wanted.append(message)
    if len(got) != len(wanted):
        return f"expected {len(wanted)} filters, got {[f.name for f in got]}"
    for have, want in zip(got, wanted, strict=True):
        a, b = (_unordered(json_format.MessageToDict(m)) for m in (have, want))
        if a != b:
            return f"{want.name} differs at {_first_difference(b, a)}"
    return None


SETS = ("rules", "ids", "permissions", "principals", "valueMatchers")
"""Lists of conditions, which mean the same in any order."""


def _unordered(node: Any) -> Any:
    if isinstance(node, list):
        return [_unordered(n) for n in node]
    if not isinstance(node, dict):
        return node
    found = {k: _unordered(v) for k, v in node.items()}
    if found.get("regex") == matchers.ANYTHING:  # Istio's, which no byte outside of UTF-8 passes
        found["regex"] = ".+"
    return {
        k: sorted(v, key=lambda n: json.dumps(n, sort_keys=True)) if k in SETS and isinstance(v, list) else v
        for k, v in found.items()
    }


def _first_difference(want: object, have: object, path: str = "") -> str:
    if isinstance(want, dict) and isinstance(have, dict):
        for key in sorted(want.keys() | have.keys()):
            if want.get(key) != have.get(key):
                return _first_difference(want.get(key), have.get(key), f"{path}.{key}")
    if isinstance(want, list) and isinstance(have, list) and len(want) == len(have):
        for i, (a, b) in enumerate(zip(want, have, strict=True)):
            if a != b:
                return _first_difference(a, b, f"{path}[{i}]")
    return f"{path}: expected {json.dumps(want)[:300]}, got {json.dumps(have)[:300]}"
