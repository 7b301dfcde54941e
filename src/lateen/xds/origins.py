"""The user's object behind a resource or a part of one, in the form that Istio's tools read from dumps."""

from __future__ import annotations

import re
from typing import Any

from lateen.api.kinds import Ref
from lateen.xds import pb

RULE = "rule"
"""The metadata key, next to the path, for the name of the rule in the object, if Envoy's part has no name of its
own."""


def path(ref: Ref) -> str:
    kind = re.sub(r"(?<=[a-z])(?=[A-Z])", "-", ref.kind).lower()
    return f"/apis/{ref.group}/v1/namespaces/{ref.namespace}/{kind}/{ref.name}"


def metadata(ref: Ref, rule: str = "") -> Any:
    return pb.metadata(istio={"config": path(ref), **({RULE: rule} if rule else {})})
