"""Limits that all proxies share: how they are divided, and what proxies are told."""

import math

import judge
import meshes as mesh
import pytest
from envoy.extensions.filters.http.rate_limit_quota.v3 import rate_limit_quota_pb2 as quota
from envoy.service.rate_limit_quota.v3 import rlqs_pb2
from filtering import behind
from rules import check, table

from lateen.ads import quotas as dividing
from lateen.ads.quotas import Bucket, Limit, Quotas, Share, fair, filling
from lateen.control.quotas import QuotaService, Stream
from lateen.wire import names

BUCKET = Bucket("default/p/0")
POLICY = """
kind: BackendTrafficPolicy
metadata: {name: p}
spec: {targetRefs: [TARGET], rateLimit: {global: {rules: [RULES]}}}
"""
PRODUCTPAGE = '{group: "", kind: Service, name: productpage}'


def policy(rules, target=PRODUCTPAGE):
    return POLICY.replace("RULES", rules).replace("TARGET", target)


# --- division --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("demands", "parts"),
    [
        ([], []),
        ([None], [100]),
        ([None, None], [50, 50]),
        ([1000, 1000, 1000], [100 / 3] * 3),
        ([0, 0], [50, 50]),
        ([10, 20], [45, 55]),  # what nobody needs is divided evenly
    ],
)
def test_the_parts_of_a_limit_add_up_to_it(demands, parts):
    assert fair(100, demands) == pytest.approx(parts, abs=1)


def test_a_proxy_with_little_to_do_leaves_the_rest_to_the_others():
    few, some, many = fair(100, [5, 20, 400])
    assert 5 <= few < 6
    assert 20 <= some < 22
    assert few + some + many == pytest.approx(100)


@pytest.mark.parametrize("rate", [100, 33.3333333, 0.4, 1.5, 3 / 3600, 7 / 86400, 41.94, 3_946_666_666.67, 2**32 - 1])
def test_a_rate_is_told_in_whole_seconds(rate):
    tokens, seconds = filling(rate)
    assert rate * 0.99 <= tokens / seconds <= rate * 1.000001
    assert tokens < 2**32


class Proxy:
    """Envoy's token bucket, and its reports every five seconds."""

    def __init__(self, number, per_s):
        self.number, self.per_s = number, per_s
        self.share, self.tokens, self.first = None, 0.0, True
        self.allowed = self.denied = self.passed = 0

    def step(self, dt, owed):
        if self.share is None:
            limit, rate = float("inf"), float("inf")
        else:
            limit, rate = self.share.burst, self.share.rate
        self.tokens = min(limit, self.tokens + rate * dt)
        for _ in range(owed):
            if self.tokens >= 1:
                self.tokens -= 1
                self.allowed += 1
                self.passed += 1
            else:
                self.denied += 1

    def assigned(self, share):
        if share == self.share:
            return
        old = self.share
        if old is None:
            self.tokens = share.burst
        elif old.burst:
            self.tokens = self.tokens / old.burst * share.burst  # Envoy carries the fill level over
        self.share = share


def passed(limit, rates, seconds, warm=0.0, dt=0.01, down=(math.inf, 0.0)):
    """How many requests come through in so many seconds, after ``warm`` seconds of the same load. ``down``: from when
    until when there is no istiod; then there is another one, which knows nothing."""
    quotas, proxies = Quotas(), [Proxy(i, r) for i, r in enumerate(rates)]
    due = [0.0] * len(proxies)
    before = now = 0.0
    for tick in range(round((warm + seconds) / dt)):
        now = tick * dt
        if down[0] <= now < down[1]:
            quotas = Quotas(now)
        if tick == round(warm / dt):
            before = sum(p.passed for p in proxies)
        for i, p in enumerate(proxies):
            due[i] += p.per_s * dt
            owed, due[i] = int(due[i]), due[i] % 1
            if owed and p.first:
                p.first = False
                quotas.report(i, BUCKET, limit, 0, 1, 0, now)
                for k, share in quotas.divide(BUCKET, now).items():
                    proxies[k].assigned(share)
            p.step(dt, owed)
            if tick and tick % 500 == 150 * i and not p.first and not down[0] <= now < down[1]:
                quotas.report(i, BUCKET, limit, 5, p.allowed, p.denied, now)
                p.allowed = p.denied = 0
                for k, share in quotas.divide(BUCKET, now).items():
                    proxies[k].assigned(share)
    return sum(p.passed for p in proxies) - before


@pytest.mark.parametrize("rates", [(300, 40, 10), (100, 100, 100), (500, 1, 1), (60, 60, 0)])
def test_three_proxies_let_through_what_is_asked_for_within_five_percent(rates):
    assert passed(Limit(100, "Second"), rates, 10, warm=10) == pytest.approx(1000, rel=0.05)


@pytest.mark.parametrize("rates", [(300, 40, 10), (100, 100, 100), (500, 1, 1)])
def test_never_more_than_the_limit_comes_through_from_the_beginning(rates):
    assert passed(Limit(100, "Second"), rates, 10) <= 1050


@pytest.mark.parametrize("after", [0, 2, 4, 6, 8, 10, 12])
@pytest.mark.parametrize("rates", [(300, 40, 10), (100, 100, 100), (500, 1, 1)])
def test_the_limit_holds_while_istiod_is_away_and_when_another_one_begins(rates, after):
    assert passed(Limit(100, "Second"), rates, 10, warm=15 + after, down=(15, 17)) == pytest.approx(1000, rel=0.05)


def test_a_limit_of_an_hour_is_used_up_once_whoever_gets_the_requests():
    assert passed(Limit(30, "Hour"), (2, 2, 2), 60) <= 33


def test_a_limit_of_an_hour_that_is_used_up_stays_so_when_another_istiod_begins():
    assert passed(Limit(30, "Hour"), (2, 2, 2), 60, warm=30, down=(30, 33)) <= 1
    quotas, limit = Quotas(), Limit(3, "Hour")
    quotas.report("a", BUCKET, limit, 5, 0, 4, 0.0)
    quotas.report("new", BUCKET, limit, 0, 1, 0, 1.0)
    quotas.report("idle", BUCKET, limit, 5, 0, 0, 2.0)
    assert set(quotas.divide(BUCKET, 2.0)) == {"new"}
    assert set(quotas.divide(BUCKET, 6.0).values()) == {Share(0)}


def test_a_limit_that_is_used_up_stays_so_if_a_new_proxy_reports_first_to_another_istiod():
    quotas, limit = Quotas(began=0.0), Limit(100, "Hour")
    quotas.report("new", BUCKET, limit, 0, 1, 0, 1.0)
    assert quotas.divide(BUCKET, 1.0)["new"].burst == 1
    quotas.report("a", BUCKET, limit, 5, 0, 30, 2.0)
    quotas.report("b", BUCKET, limit, 5, 0, 30, 3.0)
    assert set(quotas.divide(BUCKET, 3.0)) == {"new"}
    assert set(quotas.divide(BUCKET, 7.0).values()) == {Share(0)}


def test_a_proxy_that_finds_another_istiod_late_is_waited_for_too():
    quotas, limit = Quotas(began=0.0), Limit(100, "Hour")
    at = dividing.BEGINS_S + 1
    quotas.report("new", BUCKET, limit, 0, 1, 0, at)
    quotas.divide(BUCKET, at)
    quotas.report("a", BUCKET, limit, 5, 0, 30, at + 4)
    assert quotas.settles_in(BUCKET, at + 4) == dividing.SETTLE_S
    assert quotas.divide(BUCKET, at + 4) == {"new": Share(0)}
    quotas.report("b", BUCKET, limit, 5, 0, 30, at + 8)
    assert set(quotas.divide(BUCKET, at + 10).values()) == {Share(0)}


def test_a_limit_that_is_used_up_stays_so_if_an_idle_proxy_reports_first_to_another_istiod():
    quotas, limit = Quotas(began=0.0), Limit(100, "Hour")
    quotas.report("idle", BUCKET, limit, 5, 0, 0, 0.0)
    quotas.report("busy", BUCKET, limit, 5, 0, 30, 1.0)
    assert set(quotas.divide(BUCKET, 6.0).values()) == {Share(0)}


def test_what_a_new_proxy_is_refused_while_others_report_does_not_use_up_the_limit():
    quotas, limit = Quotas(began=0.0), Limit(100, "Hour")
    quotas.report("new", BUCKET, limit, 0, 1, 0, 0.0)
    quotas.divide(BUCKET, 0.0)
    quotas.report("new", BUCKET, limit, 5, 0, 30, 5.0)
    assert quotas.divide(BUCKET, 6.0)["new"].burst == 99


def test_a_limit_is_divided_at_once_when_istiod_has_divided_for_a_while():
    quotas = Quotas(began=0.0)
    quotas.report("a", BUCKET, Limit(100, "Hour"), 0, 1, 0, dividing.BEGINS_S)
    assert quotas.divide(BUCKET, dividing.BEGINS_S)["a"].burst == 99


def test_a_proxy_that_comes_when_all_is_used_gets_nothing():
    quotas, limit = Quotas(), Limit(3, "Hour")
    quotas.report("a", BUCKET, limit, 0, 1, 0, 0.0)
    assert quotas.divide(BUCKET, 0.0)["a"].burst == 2
    quotas.report("a", BUCKET, limit, 5, 2, 4, 5.0)
    quotas.report("b", BUCKET, limit, 0, 1, 0, 5.1)
    assert quotas.divide(BUCKET, 5.1)["b"] == Share(0)


def test_a_proxy_that_is_silent_or_gone_has_no_share():
    quotas, limit = Quotas(), Limit(100, "Second")
    for who in ("a", "b", "c"):
        quotas.report(who, BUCKET, limit, 0, 1, 0, 0.0)
    assert quotas.left("c") == [BUCKET]
    quotas.report("a", BUCKET, limit, 5, 500, 500, 30.0)
    shares = quotas.divide(BUCKET, 30.0)
    assert shares["b"] is None
    assert shares["a"].rate == pytest.approx(100)
    quotas.left("a")
    assert len(quotas) == 0


def test_what_nobody_asks_for_is_forgotten():
    quotas, limit = Quotas(), Limit(100, "Second")
    quotas.report("a", BUCKET, limit, 0, 1, 0, 0.0)
    for at in range(5, 700, 5):
        quotas.report("a", BUCKET, limit, 5, 0, 0, float(at))
    assert quotas.divide(BUCKET, 700.0) == {"a": None}
    assert len(quotas) == 0


def burst_of(quotas, limit, now):
    """The requests that a proxy gets at once whose first request comes now."""
    quotas.report("again", BUCKET, limit, 0, 1, 0, now)
    return quotas.divide(BUCKET, now)["again"].burst


@pytest.mark.parametrize(("idle_s", "wanted"), [(1, 1), (1200, 20), (7200, 60)])
@pytest.mark.parametrize("idle", [False, True], ids=["connects anew", "waits until it is idle"])
def test_the_requests_of_an_hour_are_not_given_again_to_who_waits_or_connects_anew(idle, idle_s, wanted):
    quotas, limit = Quotas(), Limit(60, "Hour")
    quotas.report("a", BUCKET, limit, 0, 1, 0, 0.0)
    quotas.report("a", BUCKET, limit, 5, 59, 0, 5.0)
    now = 5.0 + idle_s
    if idle:
        now += dividing.IDLE_S
        assert quotas.divide(BUCKET, now) == {"a": None}
        wanted = min(60, wanted + 10)
    else:
        quotas.left("a")
    assert len(quotas) == 0
    assert burst_of(quotas, limit, now) == pytest.approx(wanted, abs=2)


def test_only_what_is_not_full_is_remembered_and_not_beyond_a_limit(monkeypatch):
    monkeypatch.setattr(dividing, "MOST_KEPT", 2)
    quotas, limit = Quotas(), Limit(60, "Hour")
    for i in range(4):
        quotas.report("a", Bucket("default/p/0", str(i)), limit, 0, 40, 0, float(i))
    quotas.report("a", Bucket("default/p/1"), Limit(60, "Second"), 0, 1, 0, 5.0)
    quotas.left("a")
    assert len(quotas._kept) == 2
    quotas.report("b", BUCKET, limit, 0, 1, 0, 9999.0)
    quotas.left("b")
    assert list(quotas._kept) == [BUCKET]
    quotas.report("b", BUCKET._replace(value="held"), limit, 0, 1, 0, 9999.0)
    quotas.limited(BUCKET.rule, None)
    assert not quotas._kept


def test_a_proxy_holds_so_many_buckets_and_no_more(monkeypatch):
    monkeypatch.setattr(dividing, "MOST_BUCKETS", 3)
    quotas, limit = Quotas(), Limit(100, "Second")
    found = [quotas.report("a", Bucket("default/p/0", str(i)), limit, 0, 1, 0, 0.0) for i in range(5)]
    assert found == [True, True, True, False, False]
    assert quotas.report("b", Bucket("default/p/0", "9"), limit, 0, 1, 0, 0.0)
    assert quotas.report("a", Bucket("default/p/0", "1"), limit, 5, 1, 0, 5.0)
    assert len(quotas) == 4
    assert quotas.divide(Bucket("default/p/0", "0"), 30.0) == {"a": None}
    assert quotas.report("a", Bucket("default/p/0", "7"), limit, 0, 1, 0, 30.0)
    assert sorted(b.value for b in quotas.left("a")) == ["1", "2", "7"]
    assert len(quotas) == 1


def test_shadow_mode_lets_through_and_counts():
    quotas, limit = Quotas(), Limit(10, "Second", shadow=True)
    quotas.report("a", BUCKET, limit, 0, 1, 0, 0.0)
    assert quotas.divide(BUCKET, 0.0) == {"a": Share(math.inf)}
    quotas.report("a", BUCKET, limit, 5, 100, 0, 5.0)
    assert quotas.denied["default/p/0"] == 90
    assert quotas.allowed["default/p/0"] == 11


def test_a_changed_limit_is_divided_at_once_and_a_deleted_one_forgotten():
    quotas = Quotas()
    quotas.report("a", BUCKET, Limit(100, "Second"), 0, 1, 0, 0.0)
    assert quotas.limited("default/p/0", Limit(100, "Second")) == []
    assert quotas.limited("default/p/0", Limit(50, "Second")) == [BUCKET]
    assert quotas.divide(BUCKET, 0.1)["a"].rate == pytest.approx(50)
    assert quotas.limited("default/p/0", None) == []
    assert (len(quotas), quotas.rules) == (0, set())


# --- what proxies are told -------------------------------------------------------------------------------------------


def slots(text, pod="productpage-v1"):
    found = judge.messages(mesh.view(mesh.objects(text), pod))
    out = {}
    for name, message in found[names.ECDS].items():
        if name.startswith("lateen.quota"):
            out[name] = quota.RateLimitQuotaFilterConfig()
            message.typed_config.Unpack(out[name])
    return out


def settings(config):
    (matcher,) = config.bucket_matchers.matcher_list.matchers
    out = quota.RateLimitQuotaBucketSettings()
    matcher.on_match.action.typed_config.Unpack(out)
    return out


def test_each_rule_has_a_filter_of_its_own():
    two = "{limit: {requests: 2, unit: Minute}}, {limit: {requests: 9, unit: Second}}"
    found = slots(policy(two))
    assert sorted(found) == ["lateen.quota.0.9080", "lateen.quota.1.9080"]
    rules = [settings(c).bucket_id_builder.bucket_id_builder["rule"].string_value for c in found.values()]
    assert rules == ["default/p/0", "default/p/1"]
    assert slots(policy(two), "reviews-v1") == {}


def test_who_is_refused_learns_when_to_come_again():
    found = settings(slots(policy("{limit: {requests: 2, unit: Minute}}"))["lateen.quota.0.9080"])
    response = found.deny_response_settings
    assert response.http_status.code == 429
    assert response.grpc_status.code == 8, "RESOURCE_EXHAUSTED; after UNAVAILABLE, clients try again at once"
    headers = {h.header.key: h.header.value for h in response.response_headers_to_add}
    assert (headers["retry-after"], headers["x-ratelimit-limit"]) == ("30", "2, 2;w=60")


def test_without_istiod_a_limit_stays_as_it_is_or_refuses_as_the_policy_says():
    rule = "{limit: {requests: 2, unit: Minute}}"
    stays = settings(slots(policy(rule))["lateen.quota.0.9080"])
    assert stays.expired_assignment_behavior.fallback_rate_limit.blanket_rule == 0
    noted = policy(rule).replace("{name: p}", '{name: p, annotations: {lateen.dev/fail-closed: "true"}}')
    closed = settings(slots(noted)["lateen.quota.0.9080"])
    assert closed.expired_assignment_behavior.fallback_rate_limit.blanket_rule == 1
    assert closed.no_assignment_behavior.fallback_rate_limit.blanket_rule == 1


def selected(**condition):
    rule = {"clientSelectors": [condition], "limit": {"requests": 1}}
    return {"targetRefs": [{"group": "", "kind": "Service", "name": "s"}], "rateLimit": {"global": {"rules": [rule]}}}


@table(
    ("each value of a header", selected(headers=[{"name": "x-user", "type": "Distinct"}]), "no clients choose"),
    ("each value of a parameter", selected(queryParams=[{"name": "u", "type": "Distinct"}]), "no clients choose"),
    ("each address", selected(sourceCIDR={"value": "10.0.0.0/8", "type": "Distinct"}), "no clients choose"),
    ("each caller", selected(headers=[{"name": "@source.principal", "type": "Distinct"}]), None),
    ("one value of a header", selected(headers=[{"name": "x-user", "value": "a"}]), None),
)
def test_quotas_of_their_own_are_for_callers_with_an_identity(spec, says):
    check("BackendTrafficPolicy", spec, says)


EACH = '{clientSelectors: [{headers: [{name: "@source.principal", type: Distinct}]}], limit: {requests: 2}}'


def test_callers_without_an_identity_have_one_quota_together():
    (config,) = slots(policy(EACH)).values()
    parts = []
    for matcher in config.bucket_matchers.matcher_list.matchers:
        out = quota.RateLimitQuotaBucketSettings()
        matcher.on_match.action.typed_config.Unpack(out)
        parts.append(out.bucket_id_builder.bucket_id_builder["value"])
    assert [p.WhichOneof("value_specifier") for p in parts] == ["custom_value", "string_value"]
    assert parts[1].string_value == "-"


def test_callers_in_plain_text_are_counted_too(tmp_path):
    """Without an istiod that assigns anything, a policy that closes then refuses what it counts."""
    noted = policy(EACH).replace("{name: p}", '{name: p, annotations: {lateen.dev/fail-closed: "true"}}')
    with behind(tmp_path, slots(noted).values()) as ask:
        assert ask()[0] == 429


class Ads:
    """Counts how often somebody looks for proxies."""

    def __init__(self):
        self.looked = 0

    @property
    def connections(self):
        self.looked += 1
        return []


def service(rule, ads=None):
    found = mesh.objects(policy(rule)).backend_traffic_policies
    return QuotaService(lambda ns, n: found.get((ns, n)), ads or Ads(), "istiod", lambda: None, None)


def usage(value=""):
    out = rlqs_pb2.RateLimitQuotaUsageReports.BucketQuotaUsage(num_requests_allowed=1)
    out.bucket_id.bucket["rule"] = "default/p/0"
    if value:
        out.bucket_id.bucket["value"] = value
    return out


@pytest.mark.parametrize(
    ("rule", "values", "kept"),
    [
        ("{limit: {requests: 2}}", ["", "a", "b"], [""]),
        (EACH, ["", "a", "-", "x" * 2000], ["-", "a"]),
    ],
)
def test_a_bucket_that_the_rule_does_not_have_gets_no_share(rule, values, kept):
    ours = service(rule)
    stream = Stream("web", trusted=True)
    ours.report(stream, map(usage, values))
    assert sorted(b.value for b in ours.quotas._buckets) == kept
    assert len(stream.pending) == len(values) - len(kept)
    assert set(stream.pending.values()) == {None}


def test_whether_a_proxy_may_report_is_not_looked_up_for_each_report():
    ads = Ads()
    ours = service("{limit: {requests: 2}}", ads)
    stream = Stream("web", trusted=False)
    for _ in range(20):
        ours.report(stream, [usage()])
    assert ads.looked == 1


def test_the_annotation_has_two_values():
    spec = selected(headers=[{"name": "x-user", "value": "a"}])
    check("BackendTrafficPolicy", spec, 'no "yes" is neither', annotations={"lateen.dev/fail-closed": "yes"})
    check("BackendTrafficPolicy", spec, None, annotations={"lateen.dev/fail-closed": "true"})


def test_a_proxy_may_not_take_part_in_a_limit_that_it_is_not_configured_with(caplog):
    found = mesh.objects(policy("{limit: {requests: 2, unit: Minute}}")).backend_traffic_policies
    ads = type("Nobody", (), {"connections": []})()
    service = QuotaService(lambda ns, n: found.get((ns, n)), ads, "spiffe://td/ns/i/sa/istiod", lambda: None, None)
    stream = Stream("spiffe://td/ns/default/sa/other", False)
    usage = rlqs_pb2.RateLimitQuotaUsageReports.BucketQuotaUsage(num_requests_allowed=100)
    usage.bucket_id.bucket["rule"] = "default/p/0"
    service.report(stream, [usage])
    assert len(service.quotas) == 0
    assert "which it is not configured with" in caplog.text
    usage.bucket_id.bucket["rule"] = "default/nothing/0"
    service.report(stream, [usage])
    assert list(stream.pending.values()) == [None]
