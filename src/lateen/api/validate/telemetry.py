"""Validation rules of the kinds in telemetry.istio.io and extensions.istio.io.

Source: istio.io/istio ``pkg/config/validation/validation.go``, ValidateTelemetry, ValidateWasmPlugin and
ValidateTrafficExtension, and the schemas of their CRDs.
"""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Mapping

from lateen.api import cel, operators, tags
from lateen.api import extensions as x
from lateen.api import telemetry as t
from lateen.api.validate.common import selector, target_refs
from lateen.api.validate.findings import Findings, hint, no, warn
from lateen.kit.jsons import Json

SHA = re.compile(r"[a-f0-9]{64}")
MAX_LUA = 64 * 1024
MAX_ENV_NAME, MAX_ENV_VALUE = 256, 2048
SCHEMES = ("file", "http", "https", "oci")


def telemetry(tl: t.Telemetry, _: Json) -> Findings:
    yield from selector(tl.selector)
    yield from target_refs(tl.target_ref, tl.target_refs, tl.selector is not None)
    if len(tl.tracing) > 1:
        yield warn("spec.tracing", "multiple tracing is not currently supported")
    for i, tracing in enumerate(tl.tracing):
        yield from _tracing(tracing, f"spec.tracing[{i}]")
    for i, m in enumerate(tl.metrics):
        yield from _metrics(m, f"spec.metrics[{i}]")
    for i, log in enumerate(tl.access_logging):
        yield from _providers(log.providers, f"spec.accessLogging[{i}]")
        if log.filter and (says := cel.problem(log.filter.expression)) is not None:
            yield no(f"spec.accessLogging[{i}].filter.expression", says)
        elif log.filter and (says := cel.unknown(log.filter.expression)) is not None:
            yield hint(f"spec.accessLogging[{i}].filter.expression", says)


def _providers(providers: tuple[t.ProviderRef, ...], at: str) -> Findings:
    for i, p in enumerate(providers):
        if not p.name:
            yield no(f"{at}.providers[{i}].name", "providers.name may not be empty")


def _tracing(tr: t.Tracing, at: str) -> Findings:
    yield from _providers(tr.providers, at)
    if len(tr.providers) > 1:
        yield warn(f"{at}.providers", "multiple providers is not currently supported")
    if tr.random_sampling_percentage is not None and not 0 <= tr.random_sampling_percentage <= 100:
        yield no(f"{at}.randomSamplingPercentage", "randomSamplingPercentage must be in range [0.0, 100.0]")
    for name, tag in tr.custom_tags.items():
        where = f"{at}.customTags[{name}]"
        if not name:
            yield no(where, "tag name may not be empty")
        if tag is None:
            yield no(where, f"tag '{name}' may not have a nil value")
            continue
        given = [k for k in ("literal", "environment", "header", "formatter") if getattr(tag, k) is not None]
        if not given:
            yield hint(where, "tag without a value: give literal, environment, header or formatter")
        elif len(given) > 1:
            yield no(where, f"has {' and '.join(given)}; give only one")
        if tag.literal and not tag.literal.value:
            yield no(where, "literal tag value may not be empty")
        if tag.header and not tag.header.name:
            yield no(where, "header tag name may not be empty")
        if tag.formatter:
            if not tag.formatter.value:
                yield no(where, "formatter tag value may not be empty")
            for says in operators.problems(tag.formatter.value):
                yield no(f"{where}.formatter.value", says)
        if tag.environment and not tag.environment.name:
            yield no(where, "environment tag name may not be empty")


def _metrics(m: t.Metrics, at: str) -> Findings:
    yield from _providers(m.providers, at)
    if m.reporting_interval is not None and m.reporting_interval.nanoseconds < 1_000_000:
        yield no(f"{at}.reportingInterval", "duration must be greater than 1ms")
    for i, o in enumerate(m.overrides):
        where = f"{at}.overrides[{i}]"
        if o.match and o.match.custom_metric is not None:
            if not o.match.custom_metric:
                yield no(f"{where}.match.customMetric", "customMetric may not be empty")
            if o.match.metric is not None:
                yield no(f"{where}.match", "has metric and customMetric; give only one")
        for name, tag in o.tag_overrides.items():
            if not name:
                yield warn(f"{where}.tagOverrides", "tagOverrides.name may not be empty")
            elif tag.operation == "UPSERT":
                yield from _label(name, o.tag_overrides, f"{where}.tagOverrides[{name}]")
            if tag.operation == "UPSERT" and not tag.value:
                says = "tagOverrides.value must be set when operation is UPSERT"
                yield no(f"{where}.tagOverrides[{name}].value", says)
            elif tag.operation == "UPSERT" and (wrong := cel.problem(tag.value, formatted=True)) is not None:
                yield no(f"{where}.tagOverrides[{name}].value", wrong)
            elif tag.operation == "UPSERT" and (empty := cel.unknown(tag.value)) is not None:
                yield hint(f"{where}.tagOverrides[{name}].value", empty)
            if tag.operation == "REMOVE" and tag.value:
                says = "tagOverrides.value may only be set when operation is UPSERT"
                yield no(f"{where}.tagOverrides[{name}].value", says)


def _label(name: str, others: Mapping[str, t.TagOverride], at: str) -> Findings:
    called = tags.label(name)
    if (says := tags.problem(name)) is not None:
        yield no(at, says)
    elif same := sorted(n for n in others if n < name and others[n].operation == "UPSERT" and tags.label(n) == called):
        yield no(at, f"metrics would have this tag and {same[0]} under the same name, {called}; rename one")
    elif called != name:
        yield hint(at, f"metrics have it under the name {called}, since labels consist of letters, digits and _")


def wasm_plugin(w: x.WasmPlugin, _: Json) -> Findings:
    yield from selector(w.selector)
    yield from target_refs(w.target_ref, w.target_refs, w.selector is not None)
    yield from _wasm(w, "spec")
    yield from _match(w.match)


def traffic_extension(e: x.TrafficExtension, _: Json) -> Findings:
    yield from selector(e.selector)
    yield from target_refs(None, e.target_refs, e.selector is not None)
    if (e.wasm is None) == (e.lua is None):
        yield no("spec", "exactly one of wasm or lua must be set")
    if e.wasm is not None:
        yield from _wasm(e.wasm, "spec.wasm")
    if e.lua is not None:
        if not e.lua.inline_code:
            yield no("spec.lua.inlineCode", "lua.inlineCode cannot be empty")
        elif len(e.lua.inline_code.encode()) > MAX_LUA:
            yield no("spec.lua.inlineCode", "lua.inlineCode exceeds maximum size of 64KB")
    yield from _match(e.match)


def _wasm(w: x.WasmConfig, at: str) -> Findings:
    yield from _url(w.url, f"{at}.url")
    if w.sha256:
        if len(w.sha256) != 64:
            yield no(f"{at}.sha256", "sha256 field must be 64 characters long")
        elif not SHA.fullmatch(w.sha256):
            yield no(f"{at}.sha256", "sha256 field must match [a-f0-9]{64} pattern")
    for field, value, most, said in (  # Istio says 255 of 256
        ("imagePullSecret", w.image_pull_secret, 253, 253),
        ("pluginName", w.plugin_name, 256, 255),
    ):
        if len(value) > most:
            yield no(f"{at}.{field}", f"{field} field must be less than {said} characters long")
    yield from _env(w.vm_config.env if w.vm_config else (), f"{at}.vmConfig.env")


def _url(url: str, at: str) -> Findings:
    """A URL of http(s), oci or file, or an image reference without a scheme."""
    if not url:
        yield no(at, "url field needs to be set")
        return
    scheme, separator, _ = url.partition("://")
    try:
        found = urllib.parse.urlsplit(url if separator else f"http://{url}")
        _ = found.port
        if any(c.isspace() or ord(c) < 32 for c in url):
            raise ValueError("it has spaces")
    except ValueError as e:
        yield no(at, f'failed to parse url "{url[:80]}": {e}')
        return
    if separator and scheme.lower() not in SCHEMES:
        yield no(at, f"url contains unsupported scheme: {scheme}; use one of {', '.join(SCHEMES)}")


def _env(given: tuple[x.EnvVar, ...], at: str) -> Findings:
    seen: set[str] = set()
    for i, env in enumerate(given):
        where = f"{at}[{i}]"
        if not env.name:
            yield no(where, f"spec.vmConfig.env invalid: the name of variable {i} is empty")
        if env.name in seen:
            yield no(where, f"duplicate env: {env.name}")
        seen.add(env.name)
        if len(env.name) > MAX_ENV_NAME:
            yield no(f"{where}.name", "env.name field must be less than 255 characters long")
        if len(env.value) > MAX_ENV_VALUE:
            yield no(f"{where}.value", f"env.value field must be less than {MAX_ENV_VALUE} characters long")
        if env.value_from != "INLINE" and env.value:
            yield no(where, f"value may only be set when valueFrom is INLINE, is {env.value_from}")


def _match(selectors: tuple[x.TrafficSelector, ...]) -> Findings:
    for i, m in enumerate(selectors):
        for j, port in enumerate(m.ports):
            where, says = f"spec.match[{i}].ports[{j}]", f"spec.Match[{i}].Ports[{j}]"
            if port is None:
                yield no(where, f"{says} is nil")
            elif not 1 <= port.number <= 65535:
                yield no(where, f"{says} is out of range: {port.number}")
            elif port in m.ports[:j]:
                yield no(where, f"Duplicate value: port {port.number} is named before")
