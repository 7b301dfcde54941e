"""The user's object that a resource, or a part of one, is made from, as Istio's tools read it from dumps."""

from __future__ import annotations

import re
from typing import Any

from lateen.api.kinds import Ref
from lateen.xds import pb

RULE = "rule"
"""Beside the path: the name of the rule in the object, where Envoy has no name of its own for the part."""


def path(ref: Ref) -> str:
    kind = re.sub(r"(?<=[a-z])(?=[A-Z])", "-", ref.kind).lower()
    return f"/apis/{ref.group}/v1/namespaces/{ref.namespace}/{kind}/{ref.name}"


def metadata(ref: Ref, rule: str = "") -> Any:
    return pb.metadata(istio={"config": path(ref), **({RULE: rule} if rule else {})})
