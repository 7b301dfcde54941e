"""The rules of what a VirtualService's HTTP routes add to requests: CORS, faults, retries.

Source: istio.io/istio ``pkg/config/validation/virtualservice.go`` and ``validation.go``.
"""

from __future__ import annotations

from lateen.api import networking as n
from lateen.api.validate import scalars as s
from lateen.api.validate.findings import Findings, hint, no, warn
from lateen.api.validate.http_match import string_match
from lateen.kit.digits import digits

METHODS = {"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"}
RETRY_ON = {
    "5xx",
    "gateway-error",
    "reset",
    "reset-before-request",
    "connect-failure",
    "envoy-ratelimited",
    "retriable-4xx",
    "refused-stream",
    "retriable-status-codes",
    "retriable-headers",
    "http3-post-connect-failure",
    "cancelled",
    "deadline-exceeded",
    "internal",
    "resource-exhausted",
    "unavailable",
}


def cors_policy(cors: n.CorsPolicy | None, at: str) -> Findings:
    if cors is None:
        return
    for i, origin in enumerate(cors.allow_origins):
        where = f"{at}.allowOrigins[{i}]"
        if not (origin.exact or origin.prefix or origin.regex):
            yield no(where, "'' is not a valid match type for CORS allow origins; give exact, prefix or regex")
        else:
            yield from string_match(origin, where)
    for i, method in enumerate(cors.allow_methods):
        if method not in METHODS and method != "*":
            yield no(f"{at}.allowMethods[{i}]", f'"{method}" is not a supported HTTP method')
    for field, names in (("allowHeaders", cors.allow_headers), ("exposeHeaders", cors.expose_headers)):
        for i, name in enumerate(names):
            if name != "*":
                yield from s.header_name(name, f"{at}.{field}[{i}]")
    if cors.max_age:
        yield from s.duration(cors.max_age, f"{at}.maxAge")
        if cors.max_age.nanoseconds % 10**9:
            yield no(f"{at}.maxAge", "max_age duration is accurate only to seconds precision")


def fault_injection(fault: n.HTTPFaultInjection | None, at: str) -> Findings:
    if fault is None:
        return
    if not fault.delay and not fault.abort:
        yield no(at, "HTTP fault injection must have an abort and/or a delay")
    if fault.abort:
        yield from _abort(fault.abort, f"{at}.abort")
    if fault.delay:
        yield from _delay(fault.delay, f"{at}.delay")


def _abort(a: n.FaultAbort, at: str) -> Findings:
    yield from _percentage(a.percentage, f"{at}.percentage")
    known = (("httpStatus", a.http_status), ("grpcStatus", a.grpc_status), ("http2Error", a.http2_error))
    given = [name for name, value in known if value is not None]
    if not given:
        yield warn(at, "abort configured, but error type not set: nothing is aborted; give httpStatus or grpcStatus")
    elif len(given) > 1:
        yield no(at, f"has {' and '.join(given)}; give only one")
    if a.http_status is not None:
        yield from s.status(a.http_status, f"{at}.httpStatus")
    if a.grpc_status is not None and a.grpc_status not in n.GRPC_STATUS:
        says = (
            f'gRPC status "{a.grpc_status}" is not supported. See '
            "https://github.com/grpc/grpc/blob/master/doc/statuscodes.md for a list of supported codes, for example "
            "'NOT_FOUND'"
        )
        yield no(f"{at}.grpcStatus", says)
    if a.http2_error is not None:
        yield no(f"{at}.http2Error", "HTTP/2 abort fault injection not supported yet")


def _delay(d: n.FaultDelay, at: str) -> Findings:
    yield from _percentage(d.percentage, f"{at}.percentage")
    if d.percent is not None:
        yield from s.percent(d.percent, f"{at}.percent")
        yield hint(f"{at}.percent", "percent is deprecated, use percentage")
    if d.exponential_delay is not None:
        yield no(f"{at}.exponentialDelay", "exponentialDelay not supported yet; use fixedDelay")
    elif d.fixed_delay is None:
        yield hint(at, "delay configured, but fixedDelay not set: nothing is delayed")
    yield from s.duration(d.fixed_delay, f"{at}.fixedDelay")


def _percentage(p: n.Percent | None, at: str) -> Findings:
    if p and not (p.value == 0 or 0.0001 <= p.value <= 100):
        yield no(f"{at}.value", f"percentage {p.value:g} is neither 0.0, nor in range [0.0001, 100.0]")


def retries(r: n.HTTPRetry | None, at: str) -> Findings:
    if r is None:
        return
    if not r.attempts and (r.per_try_timeout is not None or r.retry_on or r.retry_remote_localities is not None):
        yield no(at, "http retry policy configured when attempts are set to 0 (disabled)")
    yield from s.duration(r.per_try_timeout, f"{at}.perTryTimeout")
    yield from s.duration(r.backoff, f"{at}.backoff")
    for part in r.retry_on.split(",") if r.retry_on else ():
        if part not in RETRY_ON and not (digits(part) and int(part) in s.STATUS_CODES):
            hint = ", without spaces between them" if part.strip() in RETRY_ON else ""
            known = "names of Envoy's (5xx, reset, connect-failure, …) and status codes"
            yield no(f"{at}.retryOn", f'"{part}" is not a valid retryOn policy; write {known}{hint}')
