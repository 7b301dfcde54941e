"""Certificates that an Envoy has loaded: which have expired, and whose they are."""

from datetime import timedelta

import pytest

from lateen.dump.loaded import Loaded, loaded
from lateen.kit import times

NOW = times.now()
DAY = timedelta(days=1)


def leaf(before, after, **name):
    names = [name] if name else []
    dates = {"valid_from": times.stamp(NOW - before * DAY), "expiration_time": times.stamp(NOW + after * DAY)}
    return {"cert_chain": [{"serial_number": "12ab", "subject_alt_names": names, **dates}], "ca_cert": []}


OWN = leaf(0.5, 0.5, uri="spiffe://cluster.local/ns/a/sa/b")
OLD_ROOT = {"ca_cert": leaf(10, -1)["cert_chain"], "cert_chain": []}


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ([], Loaded(True, (), ())),
        ([OLD_ROOT], Loaded(True, (), ())),
        ([leaf(60, 30, dns="a.test")], Loaded(True, (), ())),
        ([leaf(89, 1, dns="a.test"), leaf(90, -1, dns="b.test"), leaf(90, -1)],
         Loaded(True, ("b.test", "serial number 12ab"), ("a.test",))),
        ([leaf(0.95, 0.01, uri="spiffe://cluster.local/ns/a/sa/b")], Loaded(True, (), ())),
        ([leaf(2, -1, uri="spiffe://cluster.local/ns/a/sa/b")], Loaded(False, (), ())),
    ],
)  # fmt: skip
def test_a_servers_certificate_that_has_expired_is_told_from_the_workloads_own(more, expected):
    assert loaded({"certificates": [OWN, *more]}, NOW) == expected


def test_a_proxy_without_a_certificate_has_no_valid_one():
    assert loaded({}, NOW) == loaded({"certificates": [OLD_ROOT]}, NOW) == Loaded(False, (), ())
