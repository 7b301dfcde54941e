"""Which items of a list of cipher suites are sent: for one that it does not know, Envoy would refuse the listener."""

import pytest
from test_findings import networking

from lateen.api import validate
from lateen.api.networking.ciphers import usable

GROUP = "[ECDHE-ECDSA-AES128-GCM-SHA256|ECDHE-ECDSA-CHACHA20-POLY1305]"


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        (["AES128-SHA", "ROT13", "AES128-SHA"], ["AES128-SHA"]),
        (["ALL", "-AES128-SHA"], ["ALL", "-AES128-SHA"]),
        (["ALL", "!kRSA"], ["ALL"]),
        ([GROUP, "AES128-SHA"], [GROUP, "AES128-SHA"]),
        (["[AES128-SHA|ROT13]", ""], []),
        (["!AES128-SHA"], []),
        (["AES128-SHA", "-AES128-SHA"], []),
        (["AES128-SHA", "-AES128-SHA", "AES128-SHA"], []),  # a repeated item is sent once
        (["!AES128-SHA", "AES128-SHA"], []),
        (["AES128-SHA", "AES256-SHA", "+AES128-SHA"], ["AES128-SHA", "AES256-SHA", "+AES128-SHA"]),
    ],
)
def test_what_is_sent_of_a_list_of_suites(given, sent):
    assert list(usable(given)) == sent


@pytest.mark.parametrize(
    ("suites", "warned"),
    [
        (["ALL", GROUP, "-AES128-SHA"], []),
        (["ROT13"], [("ignoring invalid cipher suites: [ROT13]", False)]),
        (["ALL", "ALL"], [("ignoring duplicate cipher suites: [ALL]", False)]),
        (["ALL", "!kRSA"], [("!kRSA is ignored", True)]),
        (["!AES128-SHA"], [("they leave no cipher suite", True)]),
    ],
)
def test_what_is_said_of_them(suites, warned):
    tls = {"mode": "SIMPLE", "credentialName": "a", "cipherSuites": suites}
    server = {"hosts": ["a.test"], "port": {"number": 443, "name": "https", "protocol": "HTTPS"}, "tls": tls}
    found = validate.findings(networking("Gateway", "a", {"selector": {"istio": "gw"}, "servers": [server]}))
    assert [(f.says[: len(says)], f.own) for f, (says, _) in zip(found, warned, strict=True)] == warned
