"""Envoy's command operators (``%REQ(X)%``) in access logs and in headers. Envoy rejects a whole listener or route
configuration because of a single unknown operator.

Source: https://www.envoyproxy.io/docs/envoy/latest/configuration/advanced/substitution_formatter, and what Envoy 1.40
accepts of each with and without an argument.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator

from lateen.api import cel


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


PLAIN = _words(
    """
    ACCESS_LOG_TYPE BYTES_RECEIVED BYTES_RETRANSMITTED BYTES_SENT CONNECTION_ID CONNECTION_TERMINATION_DETAILS
    CUSTOM_FLAGS DOWNSTREAM_CX_RTT DOWNSTREAM_DECOMPRESSED_HEADER_BYTES_RECEIVED
    DOWNSTREAM_DECOMPRESSED_HEADER_BYTES_SENT DOWNSTREAM_DETECTED_CLOSE_TYPE DOWNSTREAM_DIRECT_LOCAL_ADDRESS
    DOWNSTREAM_DIRECT_LOCAL_ADDRESS_ENDPOINT_ID DOWNSTREAM_DIRECT_LOCAL_PORT DOWNSTREAM_DIRECT_REMOTE_ADDRESS
    DOWNSTREAM_DIRECT_REMOTE_PORT DOWNSTREAM_HANDSHAKE_DURATION DOWNSTREAM_HEADER_BYTES_RECEIVED
    DOWNSTREAM_HEADER_BYTES_SENT DOWNSTREAM_LOCAL_ADDRESS DOWNSTREAM_LOCAL_ADDRESS_ENDPOINT_ID
    DOWNSTREAM_LOCAL_CLOSE_REASON DOWNSTREAM_LOCAL_DNS_SAN DOWNSTREAM_LOCAL_EMAIL_SAN DOWNSTREAM_LOCAL_IP_SAN
    DOWNSTREAM_LOCAL_OTHERNAME_SAN DOWNSTREAM_LOCAL_PORT DOWNSTREAM_LOCAL_SUBJECT DOWNSTREAM_LOCAL_URI_SAN
    DOWNSTREAM_PEER_CERT DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_1 DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_256
    DOWNSTREAM_PEER_CHAIN_SERIALS DOWNSTREAM_PEER_DNS_SAN DOWNSTREAM_PEER_EMAIL_SAN DOWNSTREAM_PEER_FINGERPRINT_1
    DOWNSTREAM_PEER_FINGERPRINT_256 DOWNSTREAM_PEER_IP_SAN DOWNSTREAM_PEER_ISSUER
    DOWNSTREAM_PEER_ISSUER_FINGERPRINT_256 DOWNSTREAM_PEER_ISSUER_SERIAL DOWNSTREAM_PEER_OTHERNAME_SAN
    DOWNSTREAM_PEER_SERIAL DOWNSTREAM_PEER_SUBJECT DOWNSTREAM_PEER_URI_SAN DOWNSTREAM_REMOTE_ADDRESS
    DOWNSTREAM_REMOTE_PORT DOWNSTREAM_TLS_CIPHER DOWNSTREAM_TLS_GROUP DOWNSTREAM_TLS_SESSION_ID
    DOWNSTREAM_TLS_VERSION DOWNSTREAM_TRANSPORT_FAILURE_REASON DOWNSTREAM_WIRE_BYTES_RECEIVED
    DOWNSTREAM_WIRE_BYTES_SENT DURATION FILTER_CHAIN_NAME GRPC_STATUS GRPC_STATUS_NUMBER HOSTNAME LOCAL_REPLY_BODY
    PROTOCOL QUERY_PARAMS REQUESTED_SERVER_NAME REQUEST_DURATION REQUEST_HEADERS_BYTES REQUEST_TX_DURATION
    RESPONSE_CODE RESPONSE_DURATION RESPONSE_FLAGS RESPONSE_FLAGS_LONG RESPONSE_HEADERS_BYTES
    RESPONSE_TRAILERS_BYTES RESPONSE_TX_DURATION ROUNDTRIP_DURATION ROUTE_NAME ROUTE_RESOLUTION_COUNT
    ROUTE_RESOLUTION_TIME_US SPAN_ID STREAM_ID TLS_JA3_FINGERPRINT TLS_JA4_FINGERPRINT TRACE_ID UNIQUE_ID
    UPSTREAM_CLUSTER UPSTREAM_CLUSTER_RAW UPSTREAM_CONNECTION_ID UPSTREAM_CONNECTION_IDS_ATTEMPTED
    UPSTREAM_CONNECTION_POOL_READY_DURATION UPSTREAM_DECOMPRESSED_HEADER_BYTES_RECEIVED
    UPSTREAM_DECOMPRESSED_HEADER_BYTES_SENT UPSTREAM_DETECTED_CLOSE_TYPE UPSTREAM_HEADER_BYTES_RECEIVED
    UPSTREAM_HEADER_BYTES_SENT UPSTREAM_HOST UPSTREAM_HOSTS_ATTEMPTED UPSTREAM_HOSTS_ATTEMPTED_WITHOUT_PORT
    UPSTREAM_HOST_NAME UPSTREAM_HOST_NAMES_ATTEMPTED UPSTREAM_HOST_NAMES_ATTEMPTED_WITHOUT_PORT
    UPSTREAM_HOST_NAME_WITHOUT_PORT UPSTREAM_LOCAL_ADDRESS UPSTREAM_LOCAL_CLOSE_REASON UPSTREAM_LOCAL_DNS_SAN
    UPSTREAM_LOCAL_IP_SAN UPSTREAM_LOCAL_PORT UPSTREAM_LOCAL_URI_SAN UPSTREAM_PEER_CERT UPSTREAM_PEER_DNS_SAN
    UPSTREAM_PEER_IP_SAN UPSTREAM_PEER_ISSUER UPSTREAM_PEER_SUBJECT UPSTREAM_PEER_URI_SAN UPSTREAM_PROTOCOL
    UPSTREAM_REMOTE_ADDRESS UPSTREAM_REMOTE_ADDRESS_ENDPOINT_ID UPSTREAM_REMOTE_PORT UPSTREAM_REQUEST_ATTEMPT_COUNT
    UPSTREAM_SERVER_NAME UPSTREAM_TLS_CIPHER UPSTREAM_TLS_GROUP UPSTREAM_TLS_SESSION_ID UPSTREAM_TLS_VERSION
    UPSTREAM_TRANSPORT_FAILURE_REASON UPSTREAM_WIRE_BYTES_RECEIVED UPSTREAM_WIRE_BYTES_SENT VIRTUAL_CLUSTER_NAME
    """
)
"""Operators without an argument."""

WITH_ARGUMENT = _words(
    """
    CEL CLUSTER_METADATA COMMON_DURATION DYNAMIC_METADATA ENVIRONMENT FILTER_STATE METADATA QUERY_PARAM REQ
    REQUEST_HEADER REQ_WITHOUT_QUERY RESP RESPONSE_HEADER RESPONSE_TRAILER STREAM_INFO_REQ TRAILER
    UPSTREAM_FILTER_STATE UPSTREAM_METADATA
    """
)
"""Operators that need an argument, as in ``%REQ(:METHOD)%``."""

EITHER = _words(
    """
    DOWNSTREAM_DIRECT_LOCAL_ADDRESS_WITHOUT_PORT DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT
    DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT DOWNSTREAM_PEER_CERT_V_END DOWNSTREAM_PEER_CERT_V_START
    DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT EMIT_TIME EMIT_TIME_LOCAL PATH RESPONSE_CODE_DETAILS START_TIME
    START_TIME_LOCAL UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT UPSTREAM_PEER_CERT_V_END UPSTREAM_PEER_CERT_V_START
    UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT
    """
)

HEADERS = frozenset(("PER_REQUEST_STATE",))
"""Operators with an argument that are available only in headers."""

_HEADER = r":?[-!#$&'*+.^_`|~0-9A-Za-z]+"
_TIME = (r"(?:(?!%n)[^\n])*", "%NAME(%Y-%m-%d)%")
_ARGUMENTS = {
    **dict.fromkeys(
        _words("REQ REQUEST_HEADER REQ_WITHOUT_QUERY RESP RESPONSE_HEADER RESPONSE_TRAILER STREAM_INFO_REQ TRAILER"),
        (rf"{_HEADER}(?:\?(?:{_HEADER})?)?", "%NAME(HEADER)% or %NAME(HEADER?ANOTHER)%"),
    ),
    **dict.fromkeys(
        ("FILTER_STATE", "UPSTREAM_FILTER_STATE"),
        (r"[^:]+(?::(?:PLAIN|TYPED|FIELD:.+)?)?", "%NAME(KEY:PLAIN)%, with PLAIN, TYPED or FIELD:name"),
    ),
    "COMMON_DURATION": (r"[^:]*:[^:]*:(?:ms|us|ns)", "%NAME(DS_RX_BEG:DS_RX_END:ms)%, with ms, us or ns"),
    "METADATA": (
        r"(?:DYNAMIC|CLUSTER|LISTENER|LISTENER_FILTER_CHAIN|ROUTE|UPSTREAM_HOST|VIRTUAL_HOST)(?::.*)?",
        "%NAME(ROUTE:NAMESPACE:KEY)%, with DYNAMIC, CLUSTER, LISTENER, ROUTE, UPSTREAM_HOST or VIRTUAL_HOST",
    ),
    "PATH": (r"(?:WQ|NQ)?(?::(?:ORIG|PATH|ORIG_OR_PATH)(?::.*)?)?", "%NAME(NQ:ORIG)%, with WQ or NQ, and ORIG or PATH"),
    **dict.fromkeys((n for n in EITHER if "TIME" in n or "CERT" in n), _TIME),
}
"""Operator -> (what its argument looks like, an example); the others take any text."""
_SHORTENED = WITH_ARGUMENT - {"COMMON_DURATION"} | HEADERS | {"PATH"}
"""Operators that take a length, as in ``%REQ(:PATH):10%``."""

_OPERATOR = re.compile(r"%(?:%|([A-Z0-9_]+)(?:\(([^%]*?(?:%[^%]*?)*?)\))?(?::([0-9]{1,19}))?%)")
_EXAMPLE = "%RESPONSE_CODE% or %REQ(:METHOD)%"


def problems(text: str, more: frozenset[str] = frozenset()) -> Iterator[str]:
    """Errors that Envoy would report in a format string; ``%%`` is a percent sign. ``more``: further known
    operators."""
    at = 0
    while (start := text.find("%", at)) >= 0:
        m = _OPERATOR.match(text, start)
        if m is None:
            yield f'"{text[start : start + 30]}" is not an operator; use {_EXAMPLE}, and %% for a percent sign'
            return
        at = m.end()
        if m[1] is not None:
            yield from _operator(m[1], m[2], m[3] is not None, more)


def _operator(name: str, argument: str | None, shortened: bool, more: frozenset[str]) -> Iterator[str]:
    known = PLAIN | WITH_ARGUMENT | EITHER | more
    if name not in known:
        near = difflib.get_close_matches(name, sorted(known), 1)
        hint = f'did you mean "%{near[0]}%"?' if near else "see Envoy's documentation of command operators"
        yield f"Envoy has no operator %{name}%; {hint}"
    elif argument is not None and name in PLAIN:
        yield f"the operator %{name}% takes no argument"
    elif not argument and name in WITH_ARGUMENT | more:
        yield f"the operator %{name}% needs an argument, as in %{name}(NAME)%"
    elif argument:
        yield from _argument(name, argument)
    if shortened and name in known - _SHORTENED:
        yield f"the operator %{name}% takes no length"


def _argument(name: str, argument: str) -> Iterator[str]:
    if name == "CEL" and (wrong := cel.problem(argument, formatted=True)) is not None:
        yield f"%CEL({argument[:80]})%: {wrong}"
    pattern, example = _ARGUMENTS.get(name, ("(?s:.*)", ""))
    if re.fullmatch(pattern, argument) is None:
        yield f'"{argument[:80]}" is not a valid argument of %{name}%; write it as {example.replace("NAME", name, 1)}'
