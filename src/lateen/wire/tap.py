"""The contract for live requests (``x tap``) between istiod, agents and the command.

Each HTTP filter chain has an additional access logger, to a file of the proxy, controlled by a runtime key that is 0.
An agent sets the key in its own Envoy as long as somebody is watching.
"""

from __future__ import annotations

RUNTIME = "lateen.tap"
"""The runtime key: the percentage of requests to write."""
FILE = "/etc/istio/proxy/tap.log"
PATH = "/tap"
"""The path of the stream at the agent's port, served only on the pod's loopback interface (by port-forward)."""
LONGEST = 64 * 1024
"""The maximum length of a request's line in bytes; longer ones are left out."""

REQUEST_HEADERS, RESPONSE_HEADERS = "requestHeaders", "responseHeaders"
SECRET_HEADERS = frozenset(
    {
        "authorization",
        "proxy-authorization",
        "cookie",
        "set-cookie",
        "x-api-key",
        "x-auth-token",
        "x-amz-security-token",
        "x-csrf-token",
        "x-goog-iap-jwt-assertion",
        "x-forwarded-access-token",
    }
)
REDACTED = "(redacted)"
CONFIG = "lateen"
"""By which Envoy's admin interface knows the tap filter of a pod that has the annotation TAP_BODIES."""
REQUEST_BODY, RESPONSE_BODY = "requestBody", "responseBody"
"""``{"text": …}``, or ``{"base64": …}`` where it is no text, with ``"truncated": true`` where there was more."""
MOST_BODY = 4096
"""Bytes of each body that are shown."""
BODIES = "bodies"
"""The only key of a line that says that from now on requests have their bodies."""
ERROR = "error"
"""The only key of a line that says why requests, or their bodies, cannot be shown."""
LOST = "lost"
"""The only key of a line that contains the number of dropped requests."""

FIELDS = {
    "start": "%START_TIME(%s.%6f)%",
    "method": "%REQ(:METHOD)%",
    "path": "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%",
    "authority": "%REQ(:AUTHORITY)%",
    "protocol": "%PROTOCOL%",
    "requestId": "%REQ(X-REQUEST-ID)%",
    "userAgent": "%REQ(USER-AGENT)%",
    "status": "%RESPONSE_CODE%",
    "grpcStatus": "%GRPC_STATUS_NUMBER%",
    "flags": "%RESPONSE_FLAGS%",
    "details": "%RESPONSE_CODE_DETAILS%",
    "failure": "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
    "durationUs": "%COMMON_DURATION(DS_RX_BEG:DS_TX_END:us)%",
    "durationMs": "%DURATION%",
    "received": "%BYTES_RECEIVED%",
    "sent": "%BYTES_SENT%",
    "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    "source": "%DOWNSTREAM_REMOTE_ADDRESS%",
    "sourceIdentity": "%DOWNSTREAM_PEER_URI_SAN%",
    "sourceTls": "%DOWNSTREAM_TLS_VERSION%",
    "local": "%DOWNSTREAM_LOCAL_ADDRESS%",
    "destination": "%UPSTREAM_HOST%",
    "destinationIdentity": "%UPSTREAM_PEER_URI_SAN%",
    "destinationTls": "%UPSTREAM_TLS_VERSION%",
    "cluster": "%UPSTREAM_CLUSTER_RAW%",
    "route": "%ROUTE_NAME%",
    "routeConfig": "%METADATA(ROUTE:istio:config)%",
    "clusterConfig": "%METADATA(CLUSTER:istio:config)%",
    REQUEST_HEADERS: "%TYPED_CEL(request.headers)%",
    RESPONSE_HEADERS: "%TYPED_CEL(response.headers)%",
}
"""Key of a request's JSON line -> Envoy's format. Addresses have ports, ``start`` is in seconds since 1970, bytes are
those of the bodies. A key whose value is unknown is left out."""
SIDE = "side"
"""The key for the reporter: the client's proxy (also a gateway) or the server's."""
CLIENT, SERVER = "client", "server"
