"""The rate limit service of Istio's task, as Envoy's reference implementation documents it."""

import pytest
from envoy.extensions.common.ratelimit.v3 import ratelimit_pb2
from envoy.service.ratelimit.v3 import rls_pb2

from lateen.samples.bookinfo import rate_limit
from lateen.samples.bookinfo.rate_limit import Counters, Invalid, Service, rules

OK, OVER = rls_pb2.RateLimitResponse.OK, rls_pb2.RateLimitResponse.OVER_LIMIT
CONFIG = """
domain: ratelimit
descriptors:
- {key: PATH, value: /productpage, rate_limit: {unit: minute, requests_per_unit: 1}}
- {key: PATH, rate_limit: {unit: minute, requests_per_unit: 3}}
- {key: tried, shadow_mode: true, rate_limit: {unit: hour, requests_per_unit: 0}}
- {key: free, rate_limit: {unlimited: true}}
- key: user
  descriptors: [{key: PATH, value: /a, rate_limit: {unit: Second, requests_per_unit: 2}}]
"""


@pytest.fixture
def counters():
    found = Counters(lambda: now[0])
    found.domains = dict([rules(CONFIG)])
    now[0] = 100.0
    return found


now = [100.0]


def codes(counters, *entries, times=4, domain="ratelimit"):
    return [counters.ask(domain, [list(entries)], 1).overall_code for _ in range(times)]


def test_the_most_specific_entry_has_the_limit(counters):
    assert codes(counters, ("PATH", "/productpage")) == [OK, OVER, OVER, OVER]
    assert codes(counters, ("PATH", "/x")) == [OK, OK, OK, OVER]
    assert codes(counters, ("PATH", "/y")) == [OK, OK, OK, OVER], "each value has a counter of its own"
    assert codes(counters, ("user", "a"), ("PATH", "/a")) == [OK, OK, OVER, OVER]
    assert codes(counters, ("user", "b"), ("PATH", "/a"), times=2) == [OK, OK]


@pytest.mark.parametrize(
    "entries",
    [[("user", "a")], [("user", "a"), ("PATH", "/b")], [("free", "x")], [("tried", "x")], [("other", "x")], []],
)
def test_what_has_no_limit_passes(counters, entries):
    assert codes(counters, *entries) == [OK] * 4


def test_another_domain_has_no_limits(counters):
    assert codes(counters, ("PATH", "/productpage"), domain="other") == [OK] * 4


def test_a_limit_begins_anew_with_the_next_unit_of_time(counters):
    assert codes(counters, ("PATH", "/productpage"), times=2) == [OK, OVER]
    status = counters.ask("ratelimit", [[("PATH", "/productpage")]], 1).statuses[0]
    assert (status.limit_remaining, status.duration_until_reset.seconds) == (0, 20)
    now[0] += 20
    assert codes(counters, ("PATH", "/productpage"), times=2) == [OK, OVER]


def test_one_descriptor_over_its_limit_is_enough(counters):
    for _ in range(2):
        found = counters.ask("ratelimit", [[("PATH", "/x")], [("PATH", "/productpage")]], 1)
    assert (found.overall_code, [s.code for s in found.statuses]) == (OVER, [OK, OVER])


def test_counters_are_bounded(counters, monkeypatch):
    monkeypatch.setattr(rate_limit, "MOST", 5)
    for i in range(20):
        codes(counters, ("PATH", f"/{i}"), times=1)
    assert len(counters._counts) == 5


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[", "expected"),
        ("descriptors: []", "domain"),
        ("{domain: a, descriptors: 1}", "descriptors: must be a list"),
        ("{domain: a, descriptors: [{value: b}]}", r"descriptors\[0\].key"),
        (
            "{domain: a, descriptors: [{key: b, rate_limit: {unit: week}}]}",
            r"descriptors\[0\].rate_limit: needs a unit",
        ),
        ("{domain: a, descriptors: [{key: b}, {key: b}]}", "another one for b"),
    ],
)
def test_what_is_wrong_is_said(text, says):
    with pytest.raises(Invalid, match=says):
        rules(text)


def test_a_configuration_is_read_again_and_a_bad_one_is_not_taken(tmp_path, capsys):
    (tmp_path / "config.yaml").write_text(CONFIG)
    service = Service(tmp_path)
    asked = rls_pb2.RateLimitRequest(
        domain="ratelimit",
        descriptors=[
            ratelimit_pb2.RateLimitDescriptor(
                entries=[ratelimit_pb2.RateLimitDescriptor.Entry(key="PATH", value="/productpage")]
            )
        ],
    ).SerializeToString()

    def code():
        return rls_pb2.RateLimitResponse.FromString(service.ask(asked, None)).overall_code

    assert [code(), code()] == [OK, OVER]
    (tmp_path / "config.yaml").write_text("domain: 1")
    assert code() == OVER
    assert "the former one stays: domain" in capsys.readouterr().out
    (tmp_path / "config.yaml").write_text("domain: ratelimit")
    assert code() == OK
