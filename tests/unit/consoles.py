"""Metrics of proxies for tests of the graph."""

from lateen.console.metrics import Target
from lateen.console.series.scrape import samples

LINE = (
    'istio_requests_total{{reporter="{reporter}",source_workload="{source}",source_workload_namespace="shop",'
    'source_app="{source}",source_version="v1",destination_workload="{target}",'
    'destination_workload_namespace="shop",destination_app="{target}",destination_version="{version}",'
    'destination_service_name="{target}",destination_service_namespace="shop",request_protocol="http",'
    'response_code="{code}",response_flags="-",connection_security_policy="{policy}",'
    'source_principal="{principal}"}} {value}\n'
)


def line(
    reporter="source",
    source="web",
    target="cart",
    version="v1",
    code=200,
    policy="unknown",
    value=1,
    principal="unknown",
):
    said = {"code": code, "policy": policy, "principal": principal, "value": value}
    return LINE.format(reporter=reporter, source=source, target=target, version=version, **said).encode()


def added(*texts, fresh=True):
    target, out = Target(fresh=fresh), {}
    for text in texts:
        target.read(samples(text), out, text.endswith(b"\n"))
    return out


def edges(graph):
    return {(e["source"], e["target"]): e for e in graph["edges"]}
