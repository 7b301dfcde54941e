"""The findings that Istio does not have; docs/reference-findings.md explains them."""

from __future__ import annotations

from lateen.analysis.catalogue.kind import Kind

LATEEN = (
    Kind(
        "LAT0101",
        "ShadowedRule",
        "Warning",
        "Nothing of this VirtualService is used {} for {}: it is shadowed by the older VirtualService {}. Merge the two, or give the older one a match.",
    ),
    Kind(
        "LAT0102",
        "HiddenWildcard",
        "Info",
        'Requests to {} that no rule of this VirtualService matches get 404; they do not fall back to VirtualService {} for "{}". Add a last rule without a match if they should be served.',
    ),
    Kind(
        "LAT0103",
        "RouteKindUnused",
        "Warning",
        "The {} routes are not used on Gateway {}: servers[{}] ({}) uses {} routes.",
    ),
    Kind("LAT0104", "DelegateUnused", "Warning", "Not all of the delegate {} is used: {}."),
    Kind(
        "LAT0105",
        "DestinationRuleUnused",
        "Warning",
        "The DestinationRule applies only to clients in its own namespace {}, which has none in the mesh. Move it to the namespace of the service ({}), of its clients, or to {}.",
    ),
    Kind(
        "LAT0106",
        "ServiceEntriesShareAPort",
        "Warning",
        "Connections to port {} of any unknown address go to the older ServiceEntry {}, including those meant for this one. Give both entries addresses.",
    ),
    Kind(
        "LAT0107",
        "PortLevelMtlsPortUnknown",
        "Warning",
        "portLevelMtls names port {}, which the selected workloads do not have, so it has no effect{}. Its keys are the workloads' own ports.",
    ),
    Kind("LAT0108", "BackendNotFound", "Warning", "Requests get status 503: {}."),
    Kind(
        "LAT0109",
        "ListenerConflict",
        "Warning",
        "A listener is not there: {}. Give it another port, or other workloads.",
    ),
    Kind("LAT0110", "AnnotationNotice", "Warning", "Annotation {}: {}"),
    Kind("LAT0111", "TokenKeysNotFetched", "Warning", "Keys of tokens are missing: {}."),
    Kind(
        "LAT0112",
        "OverriddenByRoute",
        "Warning",
        "Traffic to {} is routed by {} and not by this VirtualService: routes of the Gateway API come first. Keep one of them.",
    ),
    Kind("LAT0113", "RouteNotInEffect", "Warning", "Reference to parent {}: condition {} is False ({}): {}."),
    Kind(
        "LAT0114",
        "GatewayAPINewer",
        "Info",
        "Gateway API CRD {} is {}, newer than {}, which this version follows: fields that came later have no effect.",
    ),
    Kind(
        "LAT0115",
        "ExperimentalChannelMissing",
        "Warning",
        "{} is only in the experimental channel of the Gateway API, and {}. Install that channel: lateen install --set components.pilot.k8s.env[name:PILOT_ENABLE_ALPHA_GATEWAY_API].value=true",
    ),
    Kind("LAT0116", "GatewayAPIConditionFalse", "Warning", "{}condition {} says {}: {}."),
    Kind(
        "LAT0117",
        "RuleShadowed",
        "Warning",
        "No request reaches this match of rule {} for {}: {} has the same one and goes first. Remove one of them.",
    ),
    Kind(
        "LAT0118",
        "AmbientNotImplemented",
        "Warning",
        "Label istio.io/dataplane-mode=ambient has no effect: ambient mode is not implemented, and {} no part of the mesh. Label {} istio-injection=enabled, and start its pods again.",
    ),
    Kind(
        "LAT0119",
        "HostOfAnotherNamespace",
        "Warning",
        "Listener {} is for {} at port {}, where the older {} of another namespace has the host, or a part of it, at the same proxies: both take its requests. Choose another hostname; to share one, attach routes to that Gateway (allowedRoutes), or a ListenerSet.",
    ),
    Kind("LAT0120", "RateLimitUnused", "Warning", "The rate limit has no effect here: {}."),
    Kind("LAT0130", "ProviderUnused", "Warning", "Provider {} of {} has no effect: {}."),
    Kind("LAT0131", "TargetMissing", "Warning", "The target has no effect: {}."),
    Kind(
        "LAT0132",
        "ProtocolUndeclared",
        "Info",
        "The protocol of port {} is not declared: what Envoy does not take for HTTP {}. Declare it (appProtocol: http or tcp, or a name such as http-web or tcp-db).",
    ),
    Kind(
        "LAT0133",
        "PolicyNotEnforced",
        "Warning",
        "{} of the Service {} has a proxy, which would enforce the policy; without one, a pod answers every request.",
    ),
    Kind("LAT0122", "SecurityPolicyUnused", "Warning", "SecurityPolicy: {}."),
    Kind("LAT0123", "CertificateNotIssued", "Warning", "{}: {}."),
    Kind("LAT0124", "ValidationHint", "Warning", "{}"),
    Kind(
        "LAT0125",
        "InjectionLabelIgnored",
        "Warning",
        'Label {}={} has no effect: only "{}" and "{}" count, so {}.',
    ),
    Kind(
        "LAT0126",
        "PortUnknown",
        "Warning",
        "Port {} is none of {}, so {} has no effect. Its ports, as clients call them, are: {}.",
    ),
    Kind(
        "LAT0127",
        "RouteKindUnusedByPort",
        "Warning",
        "{} has no effect at sidecars: port {} of the host uses {} routes.",
    ),
)
