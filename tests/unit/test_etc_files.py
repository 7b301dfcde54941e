"""What a pod finds in its /etc about its own name and the names of others."""

import pytest

from lateen.cluster.kubelet.etc_files import etc_files, hostname


def pod(**spec):
    return {"metadata": {"name": "busy-0", "namespace": "shop"}, "spec": spec}


def test_a_pod_of_a_subdomain_knows_its_full_name():
    made = etc_files(pod(hostname="busy", subdomain="sub"), "10.244.0.7")
    assert "10.244.0.7\tbusy.sub.shop.svc.cluster.local\tbusy\n" in made["hosts"]
    assert made["hostname"] == "busy\n"


def test_a_pod_may_have_its_full_name_as_its_hostname():
    asked = pod(hostname="busy", subdomain="sub", setHostnameAsFQDN=True)
    assert hostname(asked) == "busy.sub.shop.svc.cluster.local"
    assert etc_files(asked, "10.244.0.7")["hostname"] == "busy.sub.shop.svc.cluster.local\n"
    assert hostname(pod(setHostnameAsFQDN=True)) == "busy-0"  # it has no other


def test_a_full_name_that_the_kernel_does_not_take_is_told():
    with pytest.raises(OSError, match=r"is too long \(64 characters is the max, 7\d characters requested\)"):
        hostname(pod(hostname="a" * 48, subdomain="sub", setHostnameAsFQDN=True))


def test_short_names_of_the_cluster_are_there_unless_the_pod_wants_the_nodes():
    assert etc_files(pod(), "")["resolv.conf"].startswith("search shop.svc.cluster.local svc.cluster.local")
    config = {"searches": ["corp.test"], "options": [{"name": "ndots", "value": "2"}]}
    found = etc_files(pod(dnsPolicy="Default", dnsConfig=config), "")["resolv.conf"]
    assert found == "search corp.test\nnameserver 10.96.0.10\noptions ndots:2\n"
