"""Marks that stand for Helm's expressions in rendered objects, and the templates that come of them."""

from __future__ import annotations

import json
import re
from typing import Any

from lateen.install import k8s
from lateen.install.objects import NAMESPACE
from lateen.kit import yamldoc
from lateen.kit.jsons import Json
from lateen.wire.revision import DEFAULT

REVISION = "xrevisionx"
"""A revision that stands for `.Values.revision`."""
IF = "@if@"


def mark(expression: str) -> str:
    """Stands for an expression of Helm in a text."""
    return f"@@{expression}@@"


def line(expression: str) -> str:
    """Stands for a value that is written as JSON."""
    return f"@json {expression}@"


def optional(expression: str) -> str:
    """The same, with its key only if it is not empty."""
    return f"@with {expression}@"


def when(test: str, expression: str) -> str:
    """The same, with its key only if the test is true."""
    return f"@when {test} @then {expression}@"


def names(expression: str) -> str:
    """Stands for a list of objects whose ``name`` is in a list of texts, with its key only if there are some."""
    return f"@names {expression}@"


def items(expression: str) -> str:
    """As an item of a list: stands for all items of a list."""
    return f"@items {expression}@"


def each(expression: str) -> str:
    """As a key: stands for all entries of a mapping; as a variable's name: for all variables of a mapping."""
    return f"@each {expression}@"


def lacks(mapping: str, name: str) -> str:
    """The test whether a mapping of the user's has no such key."""
    return f'not (hasKey ({mapping} | default dict) "{name}")'


_USERS = re.compile(r"@each (.*)@")


def distinct(value: Any) -> Any:
    """The same objects, without keys and variables that are there twice once the user's (``each``) are added. Helm
    takes such objects, and then the last one counts; kustomize and server-side apply do not take them. So the user's
    replace what comes before them, and give way to what comes after them."""
    if isinstance(value, dict):
        return _mapping({k: distinct(v) for k, v in value.items()})
    return _variables([distinct(v) for v in value]) if isinstance(value, list) else value


def _mapping(given: Json) -> Json:
    keys = list(given)
    at = next((i for i, k in enumerate(keys) if _USERS.fullmatch(k)), None)
    if at is None:
        return given
    users = keys[at][len("@each ") : -1]
    # what is only there sometimes must not displace the user's always
    last = [k for k in keys[at + 1 :] if not given[k].startswith("@with ")]
    out: Json = {}
    for key, value in given.items():
        if key == keys[at]:
            out[each(_but(users, last))] = value
        elif key in last:
            out[key] = value
        elif found := re.fullmatch(r"@with (.*)@", value):
            out[key] = when(f"and ({found[1]}) ({lacks(users, key)})", found[1])
        else:
            out[key] = f"@if {lacks(users, key)} @then {value}@"
    return out


def _variables(given: list[Any]) -> list[Any]:
    names = [str(item.get("name")) if isinstance(item, dict) else "" for item in given]
    at = next((i for i, name in enumerate(names) if _USERS.fullmatch(name)), None)
    if at is None:
        return given
    users = names[at][len("@each ") : -1]
    before = [w for name, item in zip(names[:at], given, strict=False)
              for w in (f"@if {lacks(users, name)}@", item, "@end@")]  # fmt: skip
    own = {**given[at], "name": each(_but(users, [name for name in names[at + 1 :] if name]))}
    return [*before, own, *given[at + 1 :]]


def _but(users: str, names: list[str]) -> str:
    return f"omit ({users} | default dict) {' '.join(map(json.dumps, names))}" if names else users


_EACH = "{{- range $name, $value := \\2 }}"
_MARKS = (
    (r"^( *)(\S+): '?@with (.*?)@'?$", "\\1{{- with \\3 }}\n\\1\\2: {{ toJson . }}\n\\1{{- end }}"),
    (
        r"^( *)(\S+): '?@when (.*?) @then (.*?)@'?$",
        "\\1{{- if \\3 }}\n\\1\\2: {{ \\4 | toJson }}\n\\1{{- end }}",
    ),
    (
        r"^( *)(\S+): '?@names (.*?)@'?$",
        "\\1{{- with \\3 }}\n\\1\\2:\n\\1{{- range . }}\n\\1- name: {{ . | quote }}\n\\1{{- end }}\n\\1{{- end }}",
    ),
    (
        r"^( *)(\S+): '?@if (.*?) @then (.*)@'?$",
        '\\1{{- if \\3 }}\n\\1\\2: "\\4"\n\\1{{- end }}',
    ),
    (r"^( *)- '?@if (.*?)@'?$", "\\1{{- if \\2 }}"),
    (r"^( *)- '?@end@'?$", "\\1{{- end }}"),
    (r"^( *)- '?@items (.*?)@'?$", "\\1{{- range \\2 }}\n\\1- {{ toJson . }}\n\\1{{- end }}"),
    (r"'?@json (.*?)@'?$", "{{ \\1 | toJson }}"),
    (
        r"^( *)- name: '?@each (.*?)@'?\n *value: .*$",
        f"\\1{_EACH}\n\\1- name: {{{{ $name }}}}\n\\1  value: {{{{ $value | quote }}}}\n\\1{{{{- end }}}}",
    ),
    (r"^( *)\? '?(@each .*?@)'?\n *: x$", "\\1'\\2': x"),  # PyYAML's form of a long key
    (r"^( *)'?@each (.*?)@'?: .*$", f"\\1{_EACH}\n\\1{{{{ $name }}}}: {{{{ $value | quote }}}}\n\\1{{{{- end }}}}"),
    (r"@@(.*?)@@", "{{ \\1 }}"),
    (rf"(: |- ){REVISION}$", '\\1"{{ .Values.revision }}"'),
    (REVISION, "{{ .Values.revision }}"),
)


def templated(objects: list[Json]) -> str:
    """Objects with marks, as a template; those with the key ``IF`` only if its value is true."""
    out = []
    for obj in objects:
        text = yamldoc.dump(distinct({k: v for k, v in obj.items() if k != IF}))
        for pattern, by in _MARKS:
            text = re.sub(pattern, by, text, flags=re.MULTILINE)
        out.append(f"{{{{- if {obj[IF]} }}}}\n{text}{{{{- end }}}}\n" if IF in obj else text)
    return "---\n".join(out)


def by_revision(render: Any) -> str:
    """``render`` of a revision's name, for the default one and for any other."""
    default, named = templated(render(DEFAULT)), templated(render(REVISION))
    test = f'{{{{- if eq .Values.revision "{DEFAULT}" }}}}'
    return default if default == named else f"{test}\n{default}{{{{- else }}}}\n{named}{{{{- end }}}}\n"


GUARD = (
    f'{{{{- if ne .Release.Namespace "{NAMESPACE}" }}}}'
    f'{{{{ fail "install this chart into the namespace {NAMESPACE}: helm install … -n {NAMESPACE}" }}}}{{{{- end }}}}\n'
)


def image(at: str, name: str) -> str:
    """Stands for the image of a component whose hub, tag and image are values below ``at``; ``global`` has the others.
    An image with a slash is a whole one, as in Istio's charts."""
    own = f'({at}.image | default "{name}")'
    hub, tag = (f"({at}.{key} | default .Values.global.{key})" for key in ("hub", "tag"))
    return mark(f'ternary {own} (printf "%v/%v:%v" {hub} {own} {tag}) (contains "/" {own})')


def autoscaled(least: str, most: str, percent: str, behavior: str) -> Json:
    found = k8s.autoscaling(*(line(f".Values.{name}") for name in (least, most, percent)))
    return {**found, "behavior": optional(f".Values.{behavior}")}
