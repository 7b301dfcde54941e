"""A patch's value as an Envoy message: from the user's YAML, with every extension type that it names."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from typing import Any

from envoy.config.bootstrap.v3 import bootstrap_pb2
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.core.v3 import extension_pb2
from envoy.config.listener.v3 import listener_components_pb2 as lc
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_components_pb2 as rc
from envoy.config.route.v3 import route_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm
from google.protobuf import descriptor_pool, json_format, message_factory
from google.protobuf.message import Message

KINDS: dict[str, type[Any]] = {
    "BOOTSTRAP": bootstrap_pb2.Bootstrap,
    "CLUSTER": cluster_pb2.Cluster,
    "EXTENSION_CONFIG": extension_pb2.TypedExtensionConfig,
    "FILTER_CHAIN": lc.FilterChain,
    "HTTP_FILTER": hcm.HttpFilter,
    "HTTP_ROUTE": rc.Route,
    "LISTENER": listener_pb2.Listener,
    "LISTENER_FILTER": lc.ListenerFilter,
    "NETWORK_FILTER": lc.Filter,
    "ROUTE_CONFIGURATION": route_pb2.RouteConfiguration,
    "VIRTUAL_HOST": rc.VirtualHost,
}
"""applyTo -> the message that it patches."""
_ROOTS = ("envoy.", "udpa.", "xds.", "google.protobuf.")


@cache
def load(package: str) -> None:
    """Make the messages of a protobuf package known. Raises ImportError where there is no such package."""
    if not package.startswith(_ROOTS):
        raise ImportError(package)
    found = importlib.import_module(package)
    for module in pkgutil.iter_modules(found.__path__):
        if module.name.endswith("_pb2"):
            importlib.import_module(f"{package}.{module.name}")


def _types(value: Any) -> set[str]:
    if isinstance(value, dict):
        own = {value["@type"]} if isinstance(value.get("@type"), str) else set()
        return own.union(*(_types(v) for v in value.values()))
    if isinstance(value, list):
        return set[str]().union(*(_types(v) for v in value))
    return set()


def message(apply_to: str, value: dict[str, Any], strict: bool = False) -> Message:
    """Fields that Envoy does not have are left out, or with ``strict`` refused. Raises ValueError with what is wrong,
    in one sentence."""
    for url in sorted(_types(value)):
        name = url.rpartition("/")[2]
        if name.startswith("google.protobuf."):
            continue
        try:
            load(name.rpartition(".")[0])
        except ImportError:
            hint = " (hint: try using the v3 XDS API)" if ".v2." in name else ""
            says = f'referenced type unknown{hint}: "{name}" is unknown; it must be one of Envoy\'s v3 API'
            raise ValueError(says) from None
    out: Message = KINDS[apply_to]()
    try:
        json_format.ParseDict(value, out, ignore_unknown_fields=not strict)
    except json_format.ParseError as e:
        says = str(e).partition("Available Fields")[0]  # which are some dozens
        raise ValueError(says.rstrip(". \n").replace("\n", " ")) from None
    except (TypeError, KeyError, AttributeError) as e:
        raise ValueError(f"not a {out.DESCRIPTOR.name}: {e}") from None
    return out


def unpack(found: Any) -> Any | None:
    """The message inside an Any; None where its type is not known here."""
    name = found.type_url.rpartition("/")[2]
    try:
        if not name.startswith("google.protobuf."):
            load(name.rpartition(".")[0])
        described = descriptor_pool.Default().FindMessageTypeByName(name)
    except (ImportError, KeyError):
        return None
    out = message_factory.GetMessageClass(described)()
    found.Unpack(out)
    return out
