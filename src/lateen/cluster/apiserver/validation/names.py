"""The formats of names in Kubernetes: each test returns the rules that a value violates, none if it is valid.

Follows k8s.io/apimachinery's util/validation. What becomes a file, a variable or a host name is tested here first.
"""

from __future__ import annotations

import re

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_LABEL_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_QUALIFIED = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
_VALUE = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?")
_KEY = re.compile(r"[-._a-zA-Z0-9]+")
_PORT = re.compile(r"[-a-z0-9]+")
_RELAXED_ENV = re.compile(r"[ -<>-~]+")  # printable ASCII without "="

_LABEL_SAYS = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with "
    "an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
_LABEL_1035_SAYS = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, "
    "and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is "
    "'[a-z]([-a-z0-9]*[a-z0-9])?')"
)
_SUBDOMAIN_SAYS = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and "
    "end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
_QUALIFIED_SAYS = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric "
    "character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
    "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)
_VALUE_SAYS = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and "
    "end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is "
    "'(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)
_KEY_SAYS = (
    "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or "
    "'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"
)


def _long(value: str, limit: int) -> list[str]:
    return [f"must be no more than {limit} bytes"] if len(value.encode()) > limit else []


def dns_label(value: str) -> list[str]:
    """RFC 1123: containers, volumes, namespaces."""
    says = "must not contain dots" if _SUBDOMAIN.fullmatch(value) else _LABEL_SAYS
    return _long(value, 63) + ([] if _LABEL.fullmatch(value) else [says])


def dns_1035_label(value: str) -> list[str]:
    """RFC 1035, which starts with a letter: Services."""
    return _long(value, 63) + ([] if _LABEL_1035.fullmatch(value) else [_LABEL_1035_SAYS])


def dns_subdomain(value: str) -> list[str]:
    """RFC 1123: most objects."""
    return _long(value, 253) + ([] if _SUBDOMAIN.fullmatch(value) else [_SUBDOMAIN_SAYS])


def wildcard_subdomain(value: str) -> list[str]:
    return dns_subdomain(value.removeprefix("*."))


def path_segment(value: str) -> list[str]:
    """Names of RBAC's objects, which are otherwise unrestricted."""
    if value in (".", ".."):
        return [f"may not be '{value}'"]
    return [f"may not contain '{c}'" for c in "/%" if c in value]


def qualified(value: str) -> list[str]:
    """Keys of labels and annotations: ``[prefix/]name``."""
    prefix, slash, name = value.rpartition("/")
    if "/" in prefix:
        return ["a qualified name " + _QUALIFIED_SAYS.removeprefix("name part ")]
    says = []
    if slash:
        says += ["prefix part must be non-empty"] if not prefix else [f"prefix part {s}" for s in dns_subdomain(prefix)]
    if not name:
        return [*says, "name part must be non-empty", _QUALIFIED_SAYS]
    says += [f"name part {s}" for s in _long(name, 63)]
    return says if _QUALIFIED.fullmatch(name) else [*says, _QUALIFIED_SAYS]


def label_value(value: str) -> list[str]:
    return _long(value, 63) + ([] if _VALUE.fullmatch(value) else [_VALUE_SAYS])


def config_key(value: str) -> list[str]:
    """Keys of ConfigMaps and Secrets, which become file names."""
    says = _long(value, 253)
    if not _KEY.fullmatch(value):
        return [*says, _KEY_SAYS]
    if value in (".", ".."):
        return [*says, f"must not be '{value}'"]
    return [*says, "must not start with '..'"] if value.startswith("..") else says


def variable(value: str) -> list[str]:
    """Names of environment variables (the relaxed rule of Kubernetes 1.32)."""
    if not _RELAXED_ENV.fullmatch(value):
        return ["a valid environment variable name must consist only of printable ASCII characters other than '='"]
    return []


def port_name(value: str) -> list[str]:
    """IANA service names: ports of containers."""
    says = ["must be no more than 15 characters"] if len(value) > 15 else []
    if not _PORT.fullmatch(value):
        says.append("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)")
    if not re.search("[a-z]", value):
        says.append("must contain at least one letter (a-z)")
    if "--" in value:
        says.append("must not contain consecutive hyphens")
    if value[:1] == "-" or value[-1:] == "-":
        says.append("must not begin or end with a hyphen")
    return says


def port_number(value: int) -> list[str]:
    return [] if 1 <= value <= 65535 else ["must be between 1 and 65535, inclusive"]


def relative_path(value: str) -> list[str]:
    """Paths below a volume: relative, and without leaving it."""
    if value.startswith("/"):
        return ["must be a relative path"]
    return no_back_steps(value)


def no_back_steps(value: str) -> list[str]:
    return ["must not contain '..'"] if ".." in value.split("/") else []


def projected_path(value: str) -> list[str]:
    """File names inside projected, downward, ConfigMap and Secret volumes."""
    says = relative_path(value)
    if value.startswith("..") and not says:
        says.append("must not start with '..'")
    return says
