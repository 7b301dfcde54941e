"""ListenerSets, and TLS on both sides of a gateway: by the words of the Gateway API's specification."""

import judge
import meshes as mesh
import pytest
from test_gateway_api import TLS, V1, answers, gateway, listener, of, route, rule, secured, to

from lateen.api import kinds
from lateen.mesh.dialects.gateway_api import listeners
from lateen.mesh.model import Mesh
from lateen.wire import names

ALL = "{namespaces: {from: All}}"


def opened(*listeners, allowed="All", more=""):
    """A Gateway that lets in ListenerSets."""
    text = gateway(*(listeners or (listener("own", "own.example.com"),)))
    return f"{text}  allowedListeners: {{namespaces: {{from: {allowed}}}}}\n{more}"


def listener_set(*listeners, name="set", namespace="default", parent="{name: web, namespace: istio-system}"):
    return f"""
{V1}
kind: ListenerSet
metadata: {{name: {name}, namespace: {namespace}}}
spec: {{parentRef: {parent}, listeners: [{", ".join(listeners)}]}}
"""


SET_PARENT = "{kind: ListenerSet, name: set}"


def standings(*documents, found=None):
    return Mesh(found or secured(*documents)).standings()


def set_of(made, name="set", namespace="default"):
    return made[kinds.LISTENER_SET.ref(namespace, name)]


def gateway_of(made):
    return made[kinds.KUBERNETES_GATEWAY.ref("istio-system", "web")]


def hosts(*documents, name="http.8080", found=None):
    view = mesh.view(found or secured(*documents), "ingress", "istio-system")
    made = judge.messages(view)
    return {h.domains[0]: answers(h) for h in judge.routes(made, name).virtual_hosts}


def test_a_listener_set_adds_listeners_whose_routes_are_its_own():
    documents = (
        opened(),
        listener_set(listener("extra", "extra.example.com")),
        route(rule(to("reviews")), parent=SET_PARENT),
        route(rule(to("ratings")), name="of-gateway"),
    )
    assert hosts(*documents) == {
        "own.example.com": [("...", "ratings")],
        "extra.example.com": [("...", "reviews")],
    }
    made = standings(*documents)
    assert of(set_of(made).conditions) == {"Accepted": ("True", "Accepted")}
    assert [(li.name, li.attached) for li in set_of(made).listeners] == [("extra", 1)]
    assert [(li.name, li.attached) for li in gateway_of(made).listeners] == [("own", 1)]
    assert gateway_of(made).sets == 1
    route_of = made[kinds.HTTP_ROUTE.ref("default", "r")]
    assert of(route_of.parents[0].conditions)["Accepted"] == ("True", "Accepted")


@pytest.mark.parametrize(
    ("allowed", "namespace", "taken"),
    [
        ("None", "istio-system", False),
        ("Same", "istio-system", True),
        ("Same", "default", False),
        ("All", "default", True),
        ("Selector, selector: {matchLabels: {listeners: welcome}}", "default", True),
        ("Selector, selector: {matchLabels: {listeners: other}}", "default", False),
    ],
)
def test_a_gateway_says_which_namespaces_may_add_listeners(allowed, namespace, taken):
    labels = "\napiVersion: v1\nkind: Namespace\nmetadata: {name: default, labels: {listeners: welcome}}\n"
    documents = (labels, opened(allowed=allowed), listener_set(listener("x", "x.example.com"), namespace=namespace))
    made = standings(*documents)
    wanted = ("True", "Accepted") if taken else ("False", "NotAllowed")
    assert of(set_of(made, namespace=namespace).conditions)["Accepted"] == wanted
    assert gateway_of(made).sets == int(taken)
    assert ("x.example.com" in hosts(*documents)) == taken


def test_no_namespace_may_add_listeners_unless_the_gateway_says_so():
    made = standings(gateway(), listener_set(listener("x", "x.example.com"), namespace="istio-system"))
    assert of(set_of(made, namespace="istio-system").conditions)["Accepted"] == ("False", "NotAllowed")


def test_of_listeners_in_conflict_the_gateways_own_comes_first_then_the_oldest():
    documents = (
        opened(listener("own", "own.example.com")),
        listener_set(listener("a", "own.example.com"), listener("b", "b.example.com"), name="one"),
        listener_set(listener("c", "b.example.com"), name="two"),
        listener_set(listener("d", port=80, protocol="TCP"), listener("e", "e.example.com"), name="three"),
    )
    made = standings(*documents)
    assert of(gateway_of(made).listeners[0].conditions)["Conflicted"] == ("False", "NoConflicts")
    a, b = set_of(made, "one").listeners
    assert of(a.conditions)["Accepted"] == ("False", "HostnameConflict")
    assert of(a.conditions)["Programmed"] == ("False", "HostnameConflict")
    assert of(b.conditions)["Programmed"] == ("True", "Programmed")
    assert of(set_of(made, "one").conditions) == {"Accepted": ("True", "Accepted")}
    assert of(set_of(made, "two").conditions)["Accepted"] == ("False", "ListenersNotValid")
    assert of(set_of(made, "three").listeners[0].conditions)["Conflicted"] == ("True", "ProtocolConflict")
    assert gateway_of(made).sets == 2
    assert set(hosts(*documents)) == {"own.example.com", "b.example.com", "e.example.com"}


def test_a_route_that_names_a_gateway_does_not_reach_listeners_of_its_sets():
    section = "{name: web, namespace: istio-system, sectionName: extra}"
    made = standings(opened(), listener_set(listener("extra")), route(rule(to("reviews")), parent=section))
    parent = made[kinds.HTTP_ROUTE.ref("default", "r")].parents[0]
    assert of(parent.conditions)["Accepted"] == ("False", "NoMatchingParent")


def test_same_means_the_namespace_of_the_listener_set():
    same = "{name: x, port: 80, protocol: HTTP, hostname: x.example.com}"
    foreign = "{kind: ListenerSet, name: set, namespace: default}"
    made = standings(
        opened(),
        listener_set(same),
        route(rule(to("reviews")), parent=SET_PARENT),
        route(rule(to("reviews")), name="away", parent=foreign, namespace="istio-system"),
    )
    assert set_of(made).listeners[0].attached == 1
    away = made[kinds.HTTP_ROUTE.ref("istio-system", "away")].parents[0]
    assert of(away.conditions)["Accepted"] == ("False", "NotAllowedByListeners")


def test_a_certificate_of_another_namespace_needs_a_grant_for_listener_sets():
    away = ", tls: {certificateRefs: [{name: cert, namespace: istio-system}]}"
    one = listener_set(listener("x", "x.example.com", 443, "HTTPS", away))

    def grant(kind):
        return f"""
apiVersion: gateway.networking.k8s.io/v1beta1
kind: ReferenceGrant
metadata: {{name: g, namespace: istio-system}}
spec:
  from: [{{group: gateway.networking.k8s.io, kind: {kind}, namespace: default}}]
  to: [{{group: "", kind: Secret}}]
"""

    for kind, reason in (("Gateway", "RefNotPermitted"), ("ListenerSet", "ResolvedRefs")):
        found = set_of(standings(opened(), one, grant(kind)))
        assert of(found.listeners[0].conditions)["ResolvedRefs"][1] == reason
    assert of(found.conditions) == {"Accepted": ("True", "Accepted")}


def test_the_ports_that_listener_sets_add_are_known_to_who_deploys():
    made = Mesh(secured(opened(), listener_set(listener("x", port=8000), listener("y", "own.example.com"))))
    assert made.added_ports() == {("istio-system", "web"): (("x", 8000, "HTTP"),)}


# --- clients' certificates ---------------------------------------------------------------------------------------


def ca(name, namespace="istio-system"):
    text = judge.certificates()["ca"].replace("\n", "\n    ")
    return f"""
apiVersion: v1
kind: ConfigMap
metadata: {{name: {name}, namespace: {namespace}}}
data:
  ca.crt: |
    {text}
"""


def validating(refs, mode="", per_port="", listeners=None):
    own = listeners or [listener("https", "a.example.com", 443, "HTTPS", TLS)]
    how = f", mode: {mode}" if mode else ""
    ports = f", perPort: [{per_port}]" if per_port else ""
    text = f"tls: {{frontend: {{default: {{validation: {{caCertificateRefs: [{refs}]{how}}}}}{ports}}}}}"
    return f"{gateway(*own)}  {text}\n"


MAP = '{group: "", kind: ConfigMap, name: CA}'


def contexts(*documents):
    """Port -> how the gateway's listener there verifies clients."""
    made = judge.messages(mesh.view(secured(*documents), "ingress", "istio-system"))
    out = {}
    for found in made[names.LDS].values():
        for chain in found.filter_chains:
            if chain.transport_socket.name:
                context = judge.tls_pb2.DownstreamTlsContext()
                chain.transport_socket.typed_config.Unpack(context)
                out[found.address.socket_address.port_value] = context
    return out, made[names.SDS]


def test_clients_of_https_listeners_show_a_certificate_of_the_authorities_that_the_gateway_names():
    found, secrets = contexts(validating(MAP.replace("CA", "one")), ca("one"))
    own = found[8443]
    assert own.require_client_certificate.value
    name = own.common_tls_context.combined_validation_context.validation_context_sds_secret_config.name
    assert secrets[name].validation_context.trusted_ca.inline_bytes.startswith(b"-----BEGIN CERTIFICATE")


def test_a_port_may_have_authorities_of_its_own_though_it_shares_the_certificate():
    two = [listener("a", "a.example.com", 443, "HTTPS", TLS), listener("b", "b.example.com", 8000, "HTTPS", TLS)]
    port = f"{{port: 8000, tls: {{validation: {{caCertificateRefs: [{MAP.replace('CA', 'two')}]}}}}}}"
    found, secrets = contexts(validating(MAP.replace("CA", "one"), "", port, two), ca("one"), ca("two"))
    used = [
        c.common_tls_context.combined_validation_context.validation_context_sds_secret_config.name
        for c in found.values()
    ]
    assert len(set(used)) == 2
    assert set(used) <= secrets.keys()


def test_insecure_fallback_lets_in_clients_without_a_valid_certificate_and_says_so():
    text = validating(MAP.replace("CA", "one"), "AllowInsecureFallback")
    found, _ = contexts(text, ca("one"))
    assert not found[8443].require_client_certificate.value
    context = found[8443].common_tls_context.combined_validation_context.default_validation_context
    assert context.trust_chain_verification == context.ACCEPT_UNTRUSTED
    own = gateway_of(standings(text, ca("one")))
    assert of(own.conditions)["InsecureFrontendValidationMode"] == ("True", "ConfigurationChanged")


@pytest.mark.parametrize(
    ("ref", "reason"),
    [
        (MAP.replace("CA", "missing"), "InvalidCACertificateRef"),
        ('{group: "", kind: Service, name: x}', "InvalidCACertificateKind"),
        ('{group: "", kind: ConfigMap, name: one, namespace: default}', "RefNotPermitted"),
    ],
)
def test_a_listener_whose_clients_cannot_be_verified_is_closed(ref, reason):
    documents = (validating(ref), ca("one"), ca("one", "default"))
    own = of(gateway_of(standings(*documents)).listeners[0].conditions)
    assert own["ResolvedRefs"] == ("False", reason)
    assert own["Accepted"] == ("False", "NoValidCACertificate")
    assert own["Programmed"][0] == "False"
    assert contexts(*documents)[0] == {}


# --- backends ----------------------------------------------------------------------------------------------------

WEB = """
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec:
  clusterIP: 10.96.0.50
  selector: {app: reviews}
  ports: [{name: one, port: 443, targetPort: 9080}, {name: two, port: 8443, targetPort: 9080}]
"""
TO_WEB = route(rule(to("web", 443)))


def policy(validation, name="p", section="", target="web"):
    at = f", sectionName: {section}" if section else ""
    return f"""
{V1}
kind: BackendTLSPolicy
metadata: {{name: {name}}}
spec:
  targetRefs: [{{group: "", kind: Service, name: {target}{at}}}]
  validation: {{{validation}}}
"""


def verified(host="web.example.com", name="one", sans=""):
    more = f", subjectAltNames: [{sans}]" if sans else ""
    return f'hostname: {host}, caCertificateRefs: [{{group: "", kind: ConfigMap, name: {name}}}]{more}'


def upstream(port, *documents, workload="ingress", namespace="istio-system", found=None):
    made = judge.messages(mesh.view(found or secured(WEB, gateway(), TO_WEB, *documents), workload, namespace))
    cluster = made[names.CDS][f"outbound|{port}||web.default.svc.cluster.local"]
    context = judge.tls_pb2.UpstreamTlsContext()
    cluster.transport_socket.typed_config.Unpack(context)
    return context, made[names.SDS]


def sans(context):
    found = context.common_tls_context.combined_validation_context.default_validation_context
    return [
        (m.SanType.Name(m.san_type), m.matcher.exact or m.matcher.suffix) for m in found.match_typed_subject_alt_names
    ]


def authorities(context):
    return context.common_tls_context.combined_validation_context.validation_context_sds_secret_config.name


def test_a_gateway_speaks_tls_to_a_backend_and_verifies_it():
    context, secrets = upstream(443, policy(verified()), ca("one", "default"))
    assert context.sni == "web.example.com"
    assert sans(context) == [("DNS", "web.example.com")]
    assert secrets[authorities(context)].validation_context.trusted_ca.inline_bytes


def test_subject_alternative_names_replace_the_hostname():
    names_ = '{type: URI, uri: "spiffe://a/b"}, {type: Hostname, hostname: "*.example.com"}'
    context, _ = upstream(443, policy(verified(sans=names_)), ca("one", "default"))
    assert context.sni == "web.example.com"
    assert sans(context) == [("URI", "spiffe://a/b"), ("DNS", ".example.com")]


def test_the_systems_authorities_may_verify_a_backend():
    context, _ = upstream(443, policy("hostname: a.example.com, wellKnownCACertificates: System"))
    assert authorities(context) == "system"


def test_a_policy_for_a_port_precedes_one_for_the_service():
    both = (policy(verified("all.example.com"), "all"), policy(verified("two.example.com"), "two", "two"))
    for port, name in ((443, "all.example.com"), (8443, "two.example.com")):
        other = route(rule(to("web", 8443)), name="other")
        assert upstream(port, *both, other, ca("one", "default"))[0].sni == name


def test_sidecars_reach_a_backend_with_a_policy_as_before():
    context, _ = upstream(443, policy(verified()), ca("one", "default"), workload="ratings-v1", namespace="default")
    assert context.sni == "outbound_.443_._.web.default.svc.cluster.local"


def policies(*documents):
    """Policy -> its conditions at the Gateway whose routes lead there."""
    made = standings(WEB, gateway(), TO_WEB, *documents)
    return {
        ref.name: [(a.ancestor.name, of(a.conditions)) for a in found.ancestors]
        for ref, found in made.items()
        if ref.kind == "BackendTLSPolicy"
    }


def test_of_policies_with_one_target_the_oldest_counts():
    documents = (policy(verified(), "b"), policy(verified("x.example.com"), "a"), ca("one", "default"))
    found = policies(*documents)
    assert found["b"] == [("web", {"Accepted": ("True", "Accepted"), "ResolvedRefs": ("True", "ResolvedRefs")})]
    assert found["a"][0][1]["Accepted"] == ("False", "Conflicted")
    assert upstream(443, *documents)[0].sni == "web.example.com"


@pytest.mark.parametrize(
    ("ref", "reason"),
    [
        ('{group: "", kind: ConfigMap, name: missing}', "InvalidCACertificateRef"),
        ("{group: example.com, kind: Bundle, name: x}", "InvalidKind"),
    ],
)
def test_a_backend_that_cannot_be_verified_is_not_spoken_to(ref, reason):
    bad = policy(f"hostname: a.example.com, caCertificateRefs: [{ref}]")
    assert policies(bad)["p"][0][1] == {
        "Accepted": ("False", "NoValidCACertificate"),
        "ResolvedRefs": ("False", reason),
    }
    context, secrets = upstream(443, bad)
    assert authorities(context) not in secrets


def test_a_policy_whose_target_no_route_leads_to_has_no_status():
    assert policies(policy(verified(), target="reviews"), ca("one", "default")) == {"p": []}


def test_a_gateway_shows_its_certificate_to_backends():
    shown = gateway() + "  tls: {backend: {clientCertificateRef: {name: cert}}}\n"
    documents = (WEB, TO_WEB, shown, policy(verified()), ca("one", "default"))
    context, secrets = upstream(443, found=secured(*documents))
    (own,) = context.common_tls_context.tls_certificate_sds_secret_configs
    assert secrets[own.name].tls_certificate.private_key.inline_string
    assert of(gateway_of(standings(*documents)).conditions)["ResolvedRefs"] == ("True", "ResolvedRefs")


@pytest.mark.parametrize(
    ("ref", "reason"),
    [
        ("{name: missing}", "InvalidClientCertificateRef"),
        ("{kind: Other, name: cert}", "InvalidClientCertificateRef"),
        ("{name: cert, namespace: default}", "RefNotPermitted"),
    ],
)
def test_a_gateway_says_what_is_wrong_with_the_certificate_that_it_shall_show(ref, reason):
    own = gateway_of(standings(gateway() + f"  tls: {{backend: {{clientCertificateRef: {ref}}}}}\n"))
    assert of(own.conditions) == {"Accepted": ("True", "Accepted"), "ResolvedRefs": ("False", reason)}


@pytest.mark.parametrize(
    ("options", "mode", "secret"),
    [
        ("", "SIMPLE", True),
        ("gateway.istio.io/tls-terminate-mode: SIMPLE", "SIMPLE", True),
        ("gateway.istio.io/tls-terminate-mode: MUTUAL", "MUTUAL", True),
        ("gateway.istio.io/tls-terminate-mode: ISTIO_MUTUAL", "ISTIO_MUTUAL", False),
    ],
)
def test_a_listener_terminates_tls_as_istios_option_says(options, mode, secret):
    refs = "certificateRefs: [{name: cert}], " if secret else ""
    tls = f", tls: {{{refs}options: {{{options}}}}}"
    found = Mesh(secured(gateway(listener("https", "a.example.com", 443, "HTTPS", tls))))
    placed = found._placed("istio-system", "web")
    assert placed[0].written.hostname == "a.example.com"
    made = listeners._tls(found.objects.kubernetes_gateways["istio-system", "web"], placed[0])
    assert (made.mode, bool(made.credential_names)) == (mode, secret)
    assert found._faults("istio-system", "web")["https"] == () or secret
