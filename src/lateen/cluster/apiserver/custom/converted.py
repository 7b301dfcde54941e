"""ConversionReview: what a conversion webhook is asked, and what it must not change. Pure.

After apiextensions-apiserver's pkg/apiserver/conversion/webhook_converter.go.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lateen.cluster.apiserver.validation import meta
from lateen.kit import jsons
from lateen.kit.jsons import Json, dig

GROUP = "apiextensions.k8s.io"
FORMS = ("v1", "v1beta1")

Convert = Callable[[Json, str], Json]
"""An object in another apiVersion. Raises NoVersion."""


class NoVersion(Exception):
    """The apiVersion is not served (any more)."""


class Refused(Exception):
    """The webhook has not converted; the message goes on after "conversion webhook for KIND "."""


def review_version(converter: Json) -> str:
    """The first of conversionReviewVersions that is known. Raises Refused."""
    for version in converter.get("conversionReviewVersions") or []:
        if version in FORMS:
            return str(version)
    raise Refused("failed: no supported conversion review versions")


def request(form: str, uid: str, api_version: str, objects: list[Json]) -> Json:
    asked = {"uid": uid, "desiredAPIVersion": api_version, "objects": objects}
    return {"kind": "ConversionReview", "apiVersion": f"{GROUP}/{form}", "request": asked}


def objects(form: str, uid: str, api_version: str, given: list[Json], answer: Any) -> list[Json]:
    """The converted objects, with the metadata that they had but for labels and annotations. Raises Refused."""
    found = _listed(form, uid, answer)
    if len(found) != len(given):
        raise Refused(f"returned {len(found)} objects, expected {len(given)}")
    return [_object(api_version, old, new, i) for i, (old, new) in enumerate(zip(given, found, strict=True))]


def _listed(form: str, uid: str, answer: Any) -> list[Any]:
    if not isinstance(answer, dict):
        raise Refused("failed: the answer is not a ConversionReview")
    if form == "v1" and (answer.get("apiVersion"), answer.get("kind")) != (f"{GROUP}/v1", "ConversionReview"):
        got = f"{answer.get('apiVersion') or ''}, Kind={answer.get('kind') or ''}"
        raise Refused(f"failed: expected webhook response of {GROUP}/v1, Kind=ConversionReview, got {got}")
    response = answer.get("response")
    if not isinstance(response, dict):
        raise Refused("failed: no response provided")
    if form == "v1" and response.get("uid") != uid:
        given = jsons.dumps(str(response.get("uid") or "")[:80]).decode()
        raise Refused(f'failed: expected response.uid="{uid}", got {given}')
    status = dig(response, "result", "status", default="")
    if status != "Success":
        says = dig(response, "result", "message", default="") or f"response.result.status was '{status}', not 'Success'"
        raise Refused(f"failed: {says}")
    found = response.get("convertedObjects") or []
    if not isinstance(found, list):
        raise Refused("failed: convertedObjects is not a list")
    return found


def _object(api_version: str, old: Json, new: Any, i: int) -> Json:
    wrong = f"returned invalid object at index {i}: "
    if not isinstance(new, dict):
        raise Refused(f"{wrong}it is not an object")
    if new.get("apiVersion") != api_version:
        raise Refused(f"{wrong}invalid groupVersion (expected {api_version}, received {new.get('apiVersion')})")
    if new.get("kind") != old["kind"]:
        raise Refused(f"{wrong}invalid kind (expected {old['kind']}, received {new.get('kind')})")
    meta_of = new["metadata"] if isinstance(new.get("metadata"), dict) else {}
    for key, called in (("name", "name"), ("namespace", "namespace"), ("uid", "UID")):
        was, now = (str(m.get(key) or "") for m in (old["metadata"], meta_of))
        if was != now:
            raise Refused(f"returned invalid object: must have the same {called}: {was} != {now}")
    return {**new, "metadata": _metadata(old["metadata"], meta_of)}


def _metadata(old: Json, new: Json) -> Json:
    out = {k: v for k, v in old.items() if k not in ("labels", "annotations")}
    for key, check in (("labels", meta.labels), ("annotations", meta.annotated)):
        values = new.get(key)
        if values is None:
            continue
        at = "returned invalid metadata: "
        if not isinstance(values, dict):
            raise Refused(f"{at}invalid metadata.{key} of type {_in_go(values)} in converted object")
        for name, value in values.items():
            if not isinstance(value, str):
                given = _in_go(value)
                raise Refused(f"{at}metadata.{key}[{name}] must be a string, but is {given} in converted object")
        path = {"annotations": "metadata.annotation"}.get(key, f"metadata.{key}")  # as Kubernetes names it
        if values != (old.get(key) or {}) and (causes := check(values, path)):
            raise Refused(at + ", ".join(f"{c.path}: {c.says}" for c in causes))
        out |= {key: values} if values else {}
    return out


def _in_go(value: Any) -> str:
    """The name of a value's type in Kubernetes' messages."""
    names = {bool: "bool", int: "int64", float: "float64", str: "string", list: "[]interface {}"}
    return names.get(type(value), "map[string]interface {}" if isinstance(value, dict) else "<nil>")
