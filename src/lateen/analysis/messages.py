"""The catalogue of findings: Istio's codes, names, levels and texts (IST), which scripts and editors read, and those
that Lateen adds (LAT)."""

from __future__ import annotations

from typing import NamedTuple


class Kind(NamedTuple):
    """One kind of finding; ``text`` has a ``{}`` for each argument."""

    code: str
    name: str
    level: str
    text: str


DOCUMENTS = "https://istio.io/latest/docs/reference/config/analysis"


def documentation(code: str) -> str:
    """The URL of a finding's explanation: Istio's page, or a section of docs/reference-findings.md."""
    if code.startswith("IST"):
        return f"{DOCUMENTS}/{code.lower()}/"
    return f"docs/reference-findings.md#{code.lower()}"


LEVELS = ("Info", "Warning", "Error")

_ALL = (
    Kind("IST0001", "InternalError", "Error", "Internal error: {}"),
    Kind("IST0002", "Deprecated", "Warning", "Deprecated: {}"),
    Kind("IST0101", "ReferencedResourceNotFound", "Error", 'Referenced {} not found: "{}"'),
    Kind(
        "IST0102",
        "NamespaceNotInjected",
        "Info",
        "The namespace is not enabled for Istio injection. Run 'kubectl label namespace {} istio-injection=enabled' to enable it, or 'kubectl label namespace {} istio-injection=disabled' to explicitly mark it as not needing injection.",
    ),
    Kind(
        "IST0103",
        "PodMissingProxy",
        "Warning",
        "The pod {} is missing the Istio proxy. This can often be resolved by restarting or redeploying the workload.",
    ),
    Kind("IST0106", "SchemaValidationError", "Error", "Schema validation error: {}"),
    Kind("IST0107", "MisplacedAnnotation", "Warning", "Misplaced annotation: {} can only be applied to {}"),
    Kind("IST0108", "UnknownAnnotation", "Warning", "Unknown annotation: {}"),
    Kind(
        "IST0109",
        "ConflictingMeshGatewayVirtualServiceHosts",
        "Error",
        "The VirtualServices {} associated with mesh gateway define the same host {} which can lead to undefined behavior. This can be fixed by merging the conflicting VirtualServices into a single resource.",
    ),
    Kind(
        "IST0110",
        "ConflictingSidecarWorkloadSelectors",
        "Error",
        'The Sidecars {} in namespace "{}" select the same workload pod "{}", which can lead to undefined behavior.',
    ),
    Kind(
        "IST0111",
        "MultipleSidecarsWithoutWorkloadSelectors",
        "Error",
        'The Sidecars {} in namespace "{}" have no workload selector, which can lead to undefined behavior.',
    ),
    Kind(
        "IST0112",
        "VirtualServiceDestinationPortSelectorRequired",
        "Error",
        'This VirtualService routes to a service "{}" that exposes multiple ports {}. Specifying a port in the destination is required to disambiguate.',
    ),
    Kind(
        "IST0116",
        "DeploymentAssociatedToMultipleServices",
        "Warning",
        "This deployment {} is associated with multiple services using port {} but different protocols: {}",
    ),
    Kind(
        "IST0118",
        "PortNameIsNotUnderNamingConvention",
        "Info",
        "Port name {} (port: {}, targetPort: {}) doesn't follow the naming convention of Istio port.",
    ),
    Kind(
        "IST0123",
        "NamespaceMultipleInjectionLabels",
        "Warning",
        "The namespace has more than one type of injection labels {}, which may lead to undefined behavior. Make sure only one injection label exists.",
    ),
    Kind("IST0125", "InvalidAnnotation", "Warning", "Invalid annotation {}: {}"),
    Kind("IST0126", "UnknownMeshNetworksServiceRegistry", "Error", "Unknown service registry {} in network {}"),
    Kind(
        "IST0127",
        "NoMatchingWorkloadsFound",
        "Warning",
        "No matching workloads for this resource with the following labels: {}",
    ),
    Kind(
        "IST0128",
        "NoServerCertificateVerificationDestinationLevel",
        "Warning",
        "DestinationRule {} in namespace {} has TLS mode set to {} but no caCertificates are set to validate server identity for host: {}",
    ),
    Kind(
        "IST0129",
        "NoServerCertificateVerificationPortLevel",
        "Warning",
        "DestinationRule {} in namespace {} has TLS mode set to {} but no caCertificates are set to validate server identity for host: {} at port {}",
    ),
    Kind("IST0130", "VirtualServiceUnreachableRule", "Warning", "VirtualService rule {} not used ({})."),
    Kind(
        "IST0131",
        "VirtualServiceIneffectiveMatch",
        "Info",
        "VirtualService rule {} match {} is not used (duplicate/overlapping match in rule {}).",
    ),
    Kind(
        "IST0132",
        "VirtualServiceHostNotFoundInGateway",
        "Warning",
        "one or more host {} defined in VirtualService {} not found in Gateway {}.",
    ),
    Kind("IST0133", "SchemaWarning", "Warning", "Schema validation warning: {}"),
    Kind(
        "IST0134", "ServiceEntryAddressesRequired", "Warning", "ServiceEntry addresses are required for this protocol."
    ),
    Kind(
        "IST0135",
        "DeprecatedAnnotation",
        "Info",
        'Annotation "{}" has been deprecated{} and may not work in future Istio versions.',
    ),
    Kind(
        "IST0136",
        "AlphaAnnotation",
        "Info",
        'Annotation "{}" is part of an alpha-phase feature and may be incompletely supported.',
    ),
    Kind(
        "IST0137",
        "DeploymentConflictingPorts",
        "Warning",
        'This deployment {} is associated with multiple services {} using targetPort "{}" but different ports: {}.',
    ),
    Kind(
        "IST0138",
        "GatewayDuplicateCertificate",
        "Warning",
        "Duplicate certificate in multiple gateways {} may cause 404s if clients re-use HTTP2 connections.",
    ),
    Kind("IST0139", "InvalidWebhook", "Error", "{}"),
    Kind(
        "IST0140",
        "IngressRouteRulesNotAffected",
        "Warning",
        "Subset in virtual service {} has no effect on ingress gateway {} requests",
    ),
    Kind("IST0141", "InsufficientPermissions", "Error", "Missing required permission to create resource {} ({})"),
    Kind(
        "IST0142",
        "UnsupportedKubernetesVersion",
        "Error",
        'The Kubernetes Version "{}" is lower than the minimum version: {}',
    ),
    Kind(
        "IST0143",
        "LocalhostListener",
        "Error",
        "Port {} is exposed in a Service but listens on localhost. It will not be exposed to other pods.",
    ),
    Kind("IST0144", "InvalidApplicationUID", "Warning", "User ID (UID) 1337 is reserved for the sidecar proxy."),
    Kind(
        "IST0145",
        "ConflictingGateways",
        "Error",
        "Conflict with gateways {} (workload selector {}, port {}, hosts {}).",
    ),
    Kind(
        "IST0146",
        "ImageAutoWithoutInjectionWarning",
        "Warning",
        "{} {} contains `image: auto` but does not match any Istio injection webhook selectors.",
    ),
    Kind(
        "IST0147",
        "ImageAutoWithoutInjectionError",
        "Error",
        "{} {} contains `image: auto` but does not match any Istio injection webhook selectors.",
    ),
    Kind(
        "IST0148",
        "NamespaceInjectionEnabledByDefault",
        "Info",
        "is enabled for Istio injection, as Istio is installed with enableNamespacesByDefault as true.",
    ),
    Kind(
        "IST0149",
        "JwtClaimBasedRoutingWithoutRequestAuthN",
        "Error",
        "The virtual service uses the JWT claim based routing (key: {}) but found no request authentication for the gateway ({}) pod ({}). The request authentication must first be applied for the gateway pods to validate the JWT token and make the claims available for routing.",
    ),
    Kind(
        "IST0150",
        "ExternalNameServiceTypeInvalidPortName",
        "Warning",
        "Port name for ExternalName service is invalid. Proxy may prevent tcp named ports and unmatched traffic for ports serving TCP protocol from being forwarded correctly",
    ),
    Kind(
        "IST0151",
        "EnvoyFilterUsesRelativeOperation",
        "Warning",
        "This EnvoyFilter does not have a priority and has a relative patch operation set which can cause the EnvoyFilter not to be applied. Using the INSERT_FIRST of ADD option or setting the priority may help in ensuring the EnvoyFilter is applied correctly.",
    ),
    Kind(
        "IST0152",
        "EnvoyFilterUsesReplaceOperationIncorrectly",
        "Error",
        "The REPLACE operation is only valid for HTTP_FILTER and NETWORK_FILTER.",
    ),
    Kind(
        "IST0153",
        "EnvoyFilterUsesAddOperationIncorrectly",
        "Error",
        "The ADD operation will be ignored when applyTo is set to ROUTE_CONFIGURATION, or HTTP_ROUTE.",
    ),
    Kind(
        "IST0154",
        "EnvoyFilterUsesRemoveOperationIncorrectly",
        "Error",
        "The REMOVE operation will be ignored when applyTo is set to ROUTE_CONFIGURATION, or HTTP_ROUTE.",
    ),
    Kind(
        "IST0155",
        "EnvoyFilterUsesRelativeOperationWithProxyVersion",
        "Warning",
        "This EnvoyFilter does not have a priority and has a relative patch operation (NSTERT_BEFORE/AFTER, REPLACE, MERGE, DELETE) and proxyVersion set which can cause the EnvoyFilter not to be applied during an upgrade. Using the INSERT_FIRST or ADD option or setting the priority may help in ensuring the EnvoyFilter is applied correctly.",
    ),
    Kind(
        "IST0156",
        "UnsupportedGatewayAPIVersion",
        "Error",
        "The Gateway API CRD version {} is lower than the minimum version: {}",
    ),
    Kind(
        "IST0157",
        "InvalidTelemetryProvider",
        "Warning",
        'The Telemetry {} in namespace "{}" with empty providers will be ignored.',
    ),
    Kind(
        "IST0158",
        "PodsIstioProxyImageMismatchInNamespace",
        "Warning",
        "The Istio proxy images of the pods running in the namespace do not match the image defined in the injection configuration (pod names: {}). This often happens after upgrading the Istio control-plane and can be fixed by redeploying the pods.",
    ),
    Kind(
        "IST0159",
        "ConflictingTelemetryWorkloadSelectors",
        "Error",
        'The Telemetries {} in namespace "{}" select the same workload pod "{}", which can lead to undefined behavior.',
    ),
    Kind(
        "IST0160",
        "MultipleTelemetriesWithoutWorkloadSelectors",
        "Error",
        'The Telemetries {} in namespace "{}" have no workload selector, which can lead to undefined behavior.',
    ),
    Kind(
        "IST0161",
        "InvalidGatewayCredential",
        "Error",
        "The credential referenced by the Gateway {} in namespace {} is invalid, which can cause the traffic not to work as expected.",
    ),
    Kind(
        "IST0162",
        "GatewayPortNotDefinedOnService",
        "Warning",
        "The gateway is listening on a target port (port {}) that is not defined in the Service associated with its workload instances (Pod selector {}). If you need to access the gateway port through the gateway Service, it will not be available.",
    ),
    Kind(
        "IST0163",
        "InvalidExternalControlPlaneConfig",
        "Warning",
        "The hostname ({}) that was provided for the webhook ({}) to reach the ingress gateway on the external control plane cluster {}. Traffic may not flow properly.",
    ),
    Kind(
        "IST0164",
        "ExternalControlPlaneAddressIsNotAHostname",
        "Info",
        "The address ({}) that was provided for the webhook ({}) to reach the ingress gateway on the external control plane cluster is an IP address. This is not recommended for a production environment.",
    ),
    Kind(
        "IST0165",
        "ReferencedInternalGateway",
        "Warning",
        "Gateway reference in VirtualService {} is to an implementation-generated internal Gateway: {}.",
    ),
    Kind(
        "IST0166",
        "IneffectiveSelector",
        "Warning",
        "Ineffective selector on Kubernetes Gateway {}. Use the TargetRef field instead.",
    ),
    Kind("IST0167", "IneffectivePolicy", "Warning", "The policy has no impact: {}."),
    Kind(
        "IST0168",
        "UnknownUpgradeCompatibility",
        "Warning",
        'The configuration "{}" changed in release {}, but compatibility cannot be automatically detected: {}. Or, install with `--set compatibilityVersion={}` to retain the old default.',
    ),
    Kind(
        "IST0169",
        "UpdateIncompatibility",
        "Warning",
        'The configuration "{}" changed in release {}: {}. Or, install with `--set compatibilityVersion={}` to retain the old default.',
    ),
    Kind(
        "IST0170",
        "MultiClusterInconsistentService",
        "Warning",
        'The service {} in namespace "{}" is inconsistent across clusters "{}", which can lead to undefined behaviors. The inconsistent behaviors are: {}.',
    ),
    Kind(
        "IST0171",
        "NegativeConditionStatus",
        "Warning",
        "A condition with a negative status is present: type={}, reason={}, message={}.",
    ),
    Kind(
        "IST0172",
        "FutureUnsupportedGatewayAPIVersion",
        "Warning",
        "The Gateway API CRD version {} is lower than the minimum version: {}",
    ),
    Kind(
        "IST0173",
        "DestinationRuleSubsetNotSelectPods",
        "Error",
        "The Subset {} defined in the DestinationRule does not select any pods. Which may lead to 503 UH (NoHealthyUpstream).",
    ),
    Kind(
        "IST0174",
        "UnknownDestinationRuleHost",
        "Warning",
        "The host {} defined in the DestinationRule does not match any services in the mesh.",
    ),
    Kind(
        "IST0175",
        "JwksUriFetchUnrestricted",
        "Warning",
        "BLOCKED_CIDRS_IN_JWKS_URIS is not configured but {} RequestAuthentication resource(s) exist ({}). Consider configuring it to restrict JWKS URI fetches to trusted networks.",
    ),
    Kind(
        "IST0176",
        "GatewayAPICRDVersionBelowMinimum",
        "Warning",
        'Gateway API CRD "{}" is at version "{}" but Istio requires at least "{}"; resources of this kind will not be processed. Upgrade the Gateway API CRDs to satisfy the minimum version.',
    ),
    Kind(
        "IST0177",
        "ConflictingServiceEntryProtocol",
        "Warning",
        'Multiple ServiceEntries ({}) define the same host "{}" and port {} with conflicting protocols ({}).',
    ),
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
        "Requests to {} are routed by {} and not by this VirtualService: routes of the Gateway API come first. Keep one of them.",
    ),
    Kind("LAT0113", "RouteNotInEffect", "Warning", "Reference to parent {}: condition {} is False ({}): {}."),
    Kind("LAT0120", "RateLimitUnused", "Warning", "The rate limit has no effect here: {}."),
)
CATALOGUE = {k.code: k for k in _ALL}
