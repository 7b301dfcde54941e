"""Random VirtualServices in a real Envoy: each request goes where a plain reading of the rules says."""

import random

import judge
import meshes as mesh
import pytest
from matching import GATEWAY, HOSTS, PATTERNS, VALUES, WORDS, answered, connect, envoy, holds, request, some, text_match

from lateen.api import kinds, validate
from lateen.kit import yamldoc
from lateen.wire import names
from lateen.xds.generate import generate

pytestmark = pytest.mark.system


def condition(rng):
    def value():
        return rng.choice(({}, text_match(rng, VALUES, ("1.*", "x|1", "[0-9]"))))

    out = {}
    if rng.random() < 0.7:
        out["uri"] = text_match(rng, WORDS, PATTERNS)
        out |= {"ignoreUriCase": True} if rng.random() < 0.3 else {}
    if rng.random() < 0.2:
        out["method"] = text_match(rng, ("GET", "POST", "P"), ("G.*", "POST|PUT"))
    if rng.random() < 0.15:
        out["authority"] = text_match(rng, ("h1.example", "h"), (".*2.example", "h.*"))
    if rng.random() < 0.1:
        out["scheme"] = text_match(rng, ("http", "https"), ("http.*",))
    if rng.random() < 0.1:
        out["port"] = rng.choice((80, 81))
    for field, keys in (("headers", ("a", "b")), ("withoutHeaders", ("a", "c")), ("queryParams", ("q", "r"))):
        if found := some(rng, keys, value, 0.25):
            out[field] = found
    return out


def rules(rng):
    out = []
    for i in range(rng.randint(1, 6)):
        route = {"directResponse": {"status": 200, "body": {"string": str(i)}}}
        if i < 5 and rng.random() < 0.9:
            found = [c for c in (condition(rng) for _ in range(rng.randint(1, 3))) if c]
            route |= {"match": found} if found else {}
        out.append(route)
    return out


def fits(match, asked):
    method, host, path, query, headers = asked
    params = dict(p.split("=") for p in query.split("&") if p)
    return (
        holds(match.get("uri", {}), path, match.get("ignoreUriCase", False))
        and holds(match.get("method", {}), method)
        and holds(match.get("authority", {}), host)
        and holds(match.get("scheme", {}), "http")
        and match.get("port", 80) == 80
        and all(holds(m, headers.get(k)) for k, m in match.get("headers", {}).items())
        # One that is missing counts as empty there, as in Istio, except where only its presence is asked for.
        and not any(holds(m, headers.get(k, "" if m else None)) for k, m in match.get("withoutHeaders", {}).items())
        and all(holds(m, params.get(k)) for k, m in match.get("queryParams", {}).items())
    )


def expected(routes, asked):
    for i, route in enumerate(routes):
        if not route.get("match") or any(fits(m, asked) for m in route["match"]):
            return str(i)
    return "404"


@pytest.mark.parametrize("seed", range(3))
def test_requests_go_where_the_rules_say(seed, tmp_path):
    rng = random.Random(seed)
    objects = mesh.objects(GATEWAY)
    given = {}
    for n in range(HOSTS):
        host = f"h{n}.example"
        given[host] = rules(rng)
        spec = {"hosts": [host], "gateways": ["g"], "http": given[host]}
        document = {"kind": "VirtualService", "metadata": {"name": f"v{n}"}, "spec": spec}
        problems = validate.problems({"apiVersion": kinds.VIRTUAL_SERVICE.api_version, **document})
        if problems:
            del given[host]
        else:
            objects = mesh.add(objects, yamldoc.load(yamldoc.dump(document)), n % 60)
    assert len(given) > HOSTS / 2
    found = judge.decoded(generate(mesh.view(objects, "ingress", "istio-system")))
    assert names.RDS in found
    wrong = []
    with envoy({"127.77.0.1": found}, tmp_path):
        connection = connect("127.77.0.1")
        for host, routes in given.items():
            for _ in range(40):
                asked = request(rng, host)
                if (got := answered(connection, asked)) != (want := expected(routes, asked)):
                    wrong.append((asked, want, got, routes))
    assert not wrong, f"{len(wrong)} requests went elsewhere, the first: {wrong[0]}"
