"""Where webhooks are: the clientConfig of admission and of conversion.

After apiserver's pkg/util/webhook/validation.go.
"""

from __future__ import annotations

import base64
from urllib.parse import urlsplit

from cryptography import x509

from lateen.cluster.apiserver.validation import names
from lateen.cluster.apiserver.validation.fields import Causes, bad, required
from lateen.kit.jsons import Json

_FORM = "; desired format: https://host[/path]"


def check(client: Json, at: str) -> Causes:
    url, service = client.get("url"), client.get("service")
    if (url is None) == (service is None):
        return [required(at, "exactly one of url or service is required")]
    return _url(str(url), f"{at}.url") if url is not None else _service(service or {}, f"{at}.service")


def _url(url: str, at: str) -> Causes:
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises, too
    except ValueError as e:
        return [bad(at, url, f"url must be a valid URL: {e}{_FORM}")]
    out: Causes = []
    if parts.scheme != "https":
        out.append(bad(at, parts.scheme, f"'https' is the only allowed URL scheme{_FORM}"))
    if not parts.netloc:
        out.append(bad(at, "", f"host must be specified{_FORM}"))
    if "@" in parts.netloc:
        out.append(bad(at, parts.username or "", "user information is not permitted in the URL"))
    if parts.fragment:
        out.append(bad(at, parts.fragment, "fragments are not permitted in the URL"))
    if parts.query:
        out.append(bad(at, parts.query, "query parameters are not permitted in the URL"))
    return out


def _service(service: Json, at: str) -> Causes:
    out: Causes = [
        required(f"{at}.{key}", f"service {key} is required") for key in ("name", "namespace") if not service.get(key)
    ]
    port = service.get("port", 443)
    if wrong := names.port_number(port):
        out.append(bad(f"{at}.port", port, f"port is not valid: {','.join(wrong)}"))
    return out + _path(str(service.get("path") or ""), f"{at}.path")


def _path(path: str, at: str) -> Causes:
    if path in ("", "/"):
        return []
    out: Causes = [] if path.startswith("/") else [bad(at, path, "must start with a '/'")]
    for i, step in enumerate(path[1:].removesuffix("/").split("/")):
        wrong = [f": {s}" for s in names.dns_subdomain(step)] if step else [" may not be empty"]
        out += [bad(at, path, f"segment[{i}]{s}") for s in wrong]
    return out


def bundle(client: Json, at: str) -> Causes:
    """The certificates that a webhook is trusted by, if there are any."""
    given = str(client.get("caBundle") or "")
    try:
        if given:
            x509.load_pem_x509_certificates(base64.b64decode(given))
    except ValueError:
        return [bad(f"{at}.caBundle", given, "unable to load root certificates: unable to parse bytes as PEM block")]
    return []
