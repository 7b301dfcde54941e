"""The rules of the kinds of telemetry.istio.io and extensions.istio.io between their fields."""

from __future__ import annotations

import re
import urllib.parse

from lateen.api import extensions as x
from lateen.api import telemetry as t
from lateen.api.validate.common import selector, target_refs
from lateen.api.validate.findings import Findings, no, warn
from lateen.kit.jsons import Json

SHA = re.compile(r"[a-f0-9]{64}")
ENV = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
MAX_LUA = 64 * 1024
SCHEMES = {"", "http", "https", "oci", "file"}


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


def _providers(providers: tuple[t.ProviderRef, ...], at: str) -> Findings:
    for i, p in enumerate(providers):
        if not p.name:
            yield no(f"{at}.providers[{i}].name", "must not be empty")


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
        if len(given) != 1:
            yield no(where, "give one of literal, environment, header, formatter")
        if tag.literal and not tag.literal.value:
            yield no(where, "literal tag value may not be empty")
        if tag.header and not tag.header.name:
            yield no(where, "header tag name may not be empty")
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
                yield no(f"{where}.match.customMetric", "customMetric must not be empty")
            if o.match.metric is not None:
                yield no(f"{where}.match", "give only one of metric and customMetric")
        for name, tag in o.tag_overrides.items():
            if not name:
                yield no(f"{where}.tagOverrides", "tag name may not be empty")
            if tag.operation == "UPSERT" and not tag.value:
                yield no(f"{where}.tagOverrides[{name}].value", "must be set when operation is UPSERT")
            if tag.operation == "REMOVE" and tag.value:
                yield no(f"{where}.tagOverrides[{name}].value", "must not be set when operation is REMOVE")


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
    if not w.url:
        yield no(f"{at}.url", "url field needs to be set")
    else:
        parts = urllib.parse.urlsplit(w.url)
        if parts.scheme not in SCHEMES and "://" in w.url:
            yield no(f"{at}.url", f'url field "{w.url}" contains unsupported scheme: "{parts.scheme}"')
    if w.sha256:
        if len(w.sha256) != 64:
            yield no(f"{at}.sha256", "sha256 field must be 64 characters long")
        elif not SHA.fullmatch(w.sha256):
            yield no(f"{at}.sha256", "sha256 field must match [a-f0-9]{64} pattern")
    seen: set[str] = set()
    for i, env in enumerate(w.vm_config.env if w.vm_config else ()):
        where = f"{at}.vmConfig.env[{i}]"
        if not env.name:
            yield no(where, f"spec.vmConfig.env invalid: the name of variable {i} is empty")
        if env.name in seen:
            yield no(where, f'duplicate env "{env.name}"')
        seen.add(env.name)
        if env.value_from == "HOST" and env.value:
            yield no(where, "value for env must be empty when valueFrom is HOST")
        elif env.value_from == "INLINE" and env.name and not ENV.fullmatch(env.name):
            yield no(where, f'spec.vmConfig.env invalid: "{env.name}" is not the name of a variable')


def _match(selectors: tuple[x.TrafficSelector, ...]) -> Findings:
    for i, m in enumerate(selectors):
        for j, port in enumerate(m.ports):
            where = f"spec.Match[{i}].Ports[{j}]"
            if port is None:
                yield no(where, f"{where} is nil")
            elif not 1 <= port.number <= 65535:
                yield no(where, f"{where} is out of range: {port.number}")
