"""What injected pods have in common with those of Istio, where a user meets it in kube-inject and the webhook alike."""

import pytest

from lateen.inject import manifest, pods
from lateen.inject.gotemplate import render


def deployment(annotations=None, labels=None, **spec):
    meta = {"annotations": annotations or {}, "labels": labels or {}}
    template = {"metadata": meta, "spec": {"containers": [{"name": "app"}], **spec}}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a"}, "spec": {"template": template}}


def injected(obj, values=None, told=None, **more):
    settings = pods.settings(values or {}, {}, **more)
    return manifest.into(obj, "shop", settings, [] if told is None else told)["spec"]["template"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("traffic.sidecar.istio.io/includeOutboundIPRanges", "10.0.0.0"),
        ("traffic.sidecar.istio.io/excludeOutboundIPRanges", "*"),
        ("traffic.sidecar.istio.io/includeInboundPorts", "http"),
        ("traffic.sidecar.istio.io/excludeInboundPorts", "*"),
        ("traffic.sidecar.istio.io/excludeOutboundPorts", "80;90"),
        ("status.sidecar.istio.io/port", "many"),
        ("sidecar.istio.io/interceptionMode", "REDIRCT"),
        ("prometheus.istio.io/merge-metrics", "perhaps"),
        ("readiness.status.sidecar.istio.io/periodSeconds", "-1"),
    ],
)
def test_kube_inject_refuses_a_bad_annotation_as_the_webhook_does(name, value):
    with pytest.raises(ValueError, match=f"annotation {name}"):
        injected(deployment({name: value}))


def test_kube_inject_tells_which_annotations_have_no_effect():
    told = []
    injected(deployment({"sidecar.istio.io/statsCompression": "gzip"}), told=told)
    assert [t for t in told if "statsCompression" in t]


@pytest.mark.parametrize(("label", "network"), [({}, "east"), ({"topology.istio.io/network": "west"}, "west")])
def test_an_injected_pod_is_labelled_with_its_network(label, network):
    found = injected(deployment(labels=label), {"global": {"network": "east"}})
    assert found["metadata"]["labels"]["topology.istio.io/network"] == network
    assert "topology.istio.io/network" not in injected(deployment())["metadata"]["labels"]


@pytest.mark.parametrize("names", ["vault,fetch", "vault, fetch", " vault ,fetch "])
def test_init_containers_may_be_put_before_a_native_proxy(names):
    mine = [{"name": name} for name in ("migrate", "vault", "fetch")]
    before = {"sidecar.istio.io/init-containers-before-proxy": names}
    found = injected(deployment(before, initContainers=mine), native=True)["spec"]["initContainers"]
    assert [c["name"] for c in found] == ["istio-init", "vault", "fetch", "istio-proxy", "migrate"]


@pytest.mark.parametrize(
    ("annotation", "user", "group"),
    [
        ({}, 1000659999, 1000659999),
        ({"sidecar.istio.io/interceptionMode": "TPROXY"}, 0, 1337),
        ({"sidecar.istio.io/capNetBindService": "true"}, 0, 1337),
    ],
)
def test_a_proxy_that_runs_as_root_is_known_by_its_group_on_openshift_too(annotation, user, group):
    """The redirection lets 1337 pass; other groups' connections would come back to the proxy, endlessly."""
    found = injected(deployment(annotation), uid=1000659999, gid=1000659999)
    security = pods.proxy_of(found)["securityContext"]
    assert (security["runAsUser"], security["runAsGroup"]) == (user, group)


def test_cluster_and_network_of_the_installation_come_after_all_variables_of_the_template():
    values = {"global": {"network": "east", "multiCluster": {"clusterName": "c1"}}}
    for given, last in ((values, ["ISTIO_META_CLUSTER_ID", "ISTIO_META_NETWORK"]), ({}, ["TRUST_DOMAIN"])):
        names = [e["name"] for e in pods.proxy_of(injected(deployment(), given))["env"]]
        assert names[-len(last) :] == last
        assert names.count("ISTIO_META_CLUSTER_ID") == 1


COPIED = """
{{- define "resources" }}
{{- with omitNil .Values.global.proxy.resources }}
    resources:
      {{ toYaml . | indent 6 }}
{{- end }}
{{- end }}
{{- /* which kind of container it becomes */}}
{{- $meta := .ObjectMeta }}
{{- $said := index $meta.Annotations `sidecar.istio.io/nativeSidecar` | default (printf "%t" .NativeSidecars) }}
{{- $networks := index $meta.Annotations `k8s.v1.cni.cncf.io/networks` }}
metadata:
  annotations: {
    istio.io/rev: {{ .Revision | default "default" | quote }},
    k8s.v1.cni.cncf.io/networks: '{{ appendMultusNetwork $networks `default/istio-cni` }}'
  }
spec:
  {{ if eq $said "false" }}containers:{{ else }}initContainers:{{ end }}
  - name: istio-proxy
  {{- if contains "/" (annotation $meta `sidecar.istio.io/proxyImage` .Values.global.proxy_init.image) }}
    image: mine
  {{- else }}
    image: "{{ .ProxyImage }}"
  {{- end }}
    env:
    - name: PILOT_CERT_PROVIDER
      value: {{ .Values.global.pilotCertProvider }}
    - name: CA_ADDR
      value: istiod
        {{- if not (eq .Values.revision "") }}-{{ .Values.revision }}{{- end -}}
        .{{ .Values.global.istioNamespace }}.svc:15012
    {{- if and (eq .Values.global.proxy.tracer "datadog") .ProxyConfig.GetTracing.GetTlsSettings }}
    - name: TRACED
    {{- end }}
{{ template "resources" . }}
  volumes:
  - name: istio-token
    projected: {sources: [{serviceAccountToken: {path: istio-token, audience: {{ .Values.global.sds.token.aud }}}}]}
  {{- if eq .Values.global.pilotCertProvider "istiod" }}
  - name: istiod-ca-cert
    configMap: {name: {{ .Values.global.trustBundleName | default "istio-ca-root-cert" }}}
  {{- end }}
"""


def test_a_copy_of_istios_own_template_works_as_a_template_of_the_user():
    """With the functions and values that it reads, which ours does without."""
    given = {"sidecarInjectorWebhook": {"templates": {"sidecar": COPIED}}}
    found = injected(deployment(), given, revision="canary")
    proxy = pods.proxy_of(found)
    assert {e["name"]: e["value"] for e in proxy["env"]} == {
        "PILOT_CERT_PROVIDER": "istiod",
        "CA_ADDR": "istiod-canary.istio-system.svc:15012",
    }
    assert proxy["resources"]["requests"] == {"cpu": "100m", "memory": "128Mi"}
    token, ca = found["spec"]["volumes"]
    assert token["projected"]["sources"][0]["serviceAccountToken"]["audience"] == "istio-ca"
    assert ca["configMap"] == {"name": "istio-ca-root-cert"}
    assert found["metadata"]["annotations"]["k8s.v1.cni.cncf.io/networks"] == "default/istio-cni"
    native = injected(deployment(), given, native=True)["spec"]
    assert [c["name"] for c in native["initContainers"]] == ["istio-proxy"]


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ('{{ add 1 2 "3" }} {{ sub 5 7 }} {{ div -7 2 }} {{ mod -7 2 }} {{ mul 2 3 }} {{ max 1 5 }}', "6 -2 -3 -1 6 5"),
        ('{{ list "b" "a" "b" | uniq | sortAlpha | join "," }} {{ until 3 | rest | join "" }}', "a,b 12"),
        ('{{ dig "a" "b" "none" . }} {{ dig "a" "x" "none" . }} {{ pick . "a" | toJson }}', '1 none {"a":{"b":1}}'),
        ('{{ regexReplaceAll "a(x*)b" "-ab-axxb-" "${1}W" }} {{ substr 1 3 "abcd" }}', "-W-xxW- bc"),
        (
            '{{ kindIs "map" .a }} {{ kindOf "s" }} {{ int "7" }} {{ int "7x" }} {{ any 0 "" 1 }}',
            "true string 7 0 true",
        ),
        ('{{ regexReplaceAll "a(x*)b" "-ab-" "[$1x$2$$]" }} {{ dict "a" 1 "b" | toJson }}', '-[$]- {"a":1,"b":""}'),
        ('{{ strdict "a" "b" "c" | toJsonMap }} {{ omitNil .n | toJson }}', '{"a":"b","c":""} {"y":[1]}'),
    ],
)
def test_templates_have_sprigs_functions(text, made):
    assert render(text, {"a": {"b": 1}, "n": {"x": None, "y": [None, 1], "z": {"q": None}}}) == made


@pytest.mark.parametrize(
    "text",
    [
        "{{ div 1 0 }}",
        "{{ until 99999999999 }}",
        '{{ $x := repeat 1000000 "a" }}{{ regexReplaceAll "a" $x $x }}',
        '{{ $x := repeat 1000000 "a" }}{{ replace "" $x $x }}',
        '{{ regexReplaceAll "a+" (repeat 1000000 "a") (repeat 100000 "$0") }}',
        '{{ $x := "ab" }}{{ range until 40 }}{{ $x = print $x $x }}{{ end }}',
        "{{ $x := list 1 }}{{ range until 40 }}{{ $x = concat $x $x }}{{ end }}",
        "{{ $x := list 1 }}{{ range until 5000 }}{{ $x = list $x }}{{ end }}{{ $x }}",
    ],
)
def test_what_a_template_cannot_compute_or_would_not_end_is_an_error(text):
    with pytest.raises(ValueError, match="line 1"):
        render(text, {})


BOOTSTRAP = {"sidecar.istio.io/bootstrapOverride": "mine"}


def test_the_users_volumes_and_bootstrap_are_mounted_in_istios_order():
    given = {
        **BOOTSTRAP,
        "sidecar.istio.io/userVolume": '{"b": {"emptyDir": {}}, "a": {"emptyDir": {}}}',
        "sidecar.istio.io/userVolumeMount": '{"b": {"mountPath": "/b"}, "a": {"mountPath": "/a"}}',
    }
    spec = injected(deployment(given))["spec"]
    proxy = next(c for c in spec["containers"] if c["name"] == "istio-proxy")
    mounts = [m["name"] for m in proxy["volumeMounts"]]
    assert mounts[-7:] == [
        "istio-data",
        "custom-bootstrap-volume",
        "istio-envoy",
        "istio-token",
        "istio-podinfo",
        "a",
        "b",
    ]
    assert [v["name"] for v in spec["volumes"]][-2:] == ["a", "b"]


@pytest.mark.parametrize("template", ["gateway", "grpc-agent"])
def test_a_proxy_without_the_users_bootstrap_is_not_told_to_read_it(template):
    told = []
    found = injected(deployment({**BOOTSTRAP, "inject.istio.io/templates": template}), told=told)
    proxy = next(c for c in found["spec"]["containers"] if c["name"] == "istio-proxy")
    assert "ISTIO_BOOTSTRAP_OVERRIDE" not in [e["name"] for e in proxy["env"]]
    assert [t for t in told if "bootstrapOverride" in t and template in t]


def test_a_template_writes_the_proxys_configuration_without_defaults():
    text = "metadata: {annotations: {config: '{{ protoToJSON .ProxyConfig }}'}}"
    values = {"sidecarInjectorWebhook": {"templates": {"mine": text}}}
    given = {"proxy.istio.io/config": "concurrency: 3", "inject.istio.io/templates": "sidecar,mine"}
    assert injected(deployment(given), values)["metadata"]["annotations"]["config"] == '{"concurrency":3}'


def test_a_proxyless_pod_tells_its_node_and_revision():
    found = injected(deployment({"inject.istio.io/templates": "grpc-agent"}), revision="canary")
    proxy = next(c for c in found["spec"]["containers"] if c["name"] == "istio-proxy")
    node = next(e for e in proxy["env"] if e["name"] == "ISTIO_META_NODE_NAME")
    assert node["valueFrom"] == {"fieldRef": {"fieldPath": "spec.nodeName"}}
    assert found["metadata"]["annotations"]["istio.io/rev"] == "canary"
