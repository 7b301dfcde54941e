"""What validation accepts, Envoy accepts: valid objects are mutated at random and validated by the real Envoy.

A resource that Envoy refuses holds up everything of its kind on that proxy, so each finding here was an outage.
``LATEEN_MUTANTS=N`` tries N batches instead of a few.
"""

import copy
import os
import random

import judge
import meshes as mesh
import pytest
from test_goldens import NAMES, documents, general, resources, world

from lateen.api import kinds, validate
from lateen.api.config import DecodeError, decode
from lateen.kit import yamldoc

BATCHES = int(os.environ.get("LATEEN_MUTANTS", "4"))
JUNK = (
    "", "*", "a", "A.b", "%", "%%", "%PROTOCOL%", "{x}", "/", "//", "/a?b", "a b", "é", "0", "-1", "1.5", ".*", "(",
    "[a", "a" * 300, "*.example.com", "10.0.0.1", "10.0.0.0/8", "::1", "host", ":authority", "x-a", "80", "true",
    "/../a", "spiffe://cluster.local/ns/a/sa/b", "reviews", "reviews.default.svc.cluster.local", "v1", "'", '"', "\\",
    "\\1", "$1", 0, 1, -1, 2, 80, 99, 100, 101, 443, 503, 599, 600, 1000, 65535, 65536, 2**31 - 1, 2**31, 2**32, 0.5,
    0.00001, True, False, "0s", "1ms", "1s", "100000h", "0.0001s", "1ns", [], {}, [""], {"": ""}, None,
)  # fmt: skip


def pool():
    """Field -> values that some document has there, of every size."""
    out: dict = {}

    def collect(node, path):
        out.setdefault(path.rpartition(".")[2], []).append(node)
        for k, v in node.items() if isinstance(node, dict) else ():
            collect(v, f"{path}.{k}")
        for v in node if isinstance(node, list) else ():
            collect(v, path + "[]")

    for name in NAMES:
        for doc in documents(name):
            collect(doc.get("spec") or {}, "")
    out["inlineCode"].append(None)  # an object without a script
    return out


def places(node, path=()):
    """Paths of all values, not only of leaves."""
    if path:
        yield path
    if isinstance(node, dict | list):
        for k, v in node.items() if isinstance(node, dict) else enumerate(node):
            yield from places(v, (*path, k))


def mutated(rng, spec, known):
    out = copy.deepcopy(spec)
    for _ in range(rng.choice((1, 1, 2, 3))):
        found = list(places(out))
        if not found:
            break
        path = rng.choice(found)
        at = out
        for part in path[:-1]:
            at = at[part]
        last, field = path[-1], general(path).rpartition(".")[2]
        match rng.random():
            case x if x < 0.15:
                del at[last]
            case x if x < 0.3 and isinstance(at, dict):
                other = rng.choice(list(known))  # a field of another place, where it may mean something, too
                at[other.rstrip("[]")] = copy.deepcopy(rng.choice(known[other]))
            case x if x < 0.4 and isinstance(at, list):
                at.append(copy.deepcopy(at[last]))
            case x if x < 0.7 and field in known:
                at[last] = copy.deepcopy(rng.choice(known[field]))
            case _:
                at[last] = copy.deepcopy(rng.choice(JUNK))
    return out


def accepted(doc):
    obj = {"apiVersion": mesh.kind_of(doc).api_version, **doc}
    try:
        decode(kinds.named(doc["kind"]).spec, doc["spec"])  # the schema's part, which the API server checks
        return not validate.problems(obj)
    except DecodeError:
        return False


def script(doc):
    lua = doc["spec"].get("lua") if isinstance(doc["spec"], dict) else None
    return lua.get("inlineCode") if isinstance(lua, dict) else None


def mutants(rng, known, wanted):
    """Whole documents with one of their objects changed, each still accepted."""
    out = []
    while len(out) < wanted:
        docs = documents(rng.choice(NAMES))
        i = rng.randrange(len(docs))
        if not docs[i].get("spec"):
            continue
        docs[i]["spec"] = mutated(rng, docs[i]["spec"], known)
        docs[i]["metadata"]["mutation"] = rng.random()
        # What an EnvoyFilter writes is Envoy's business, and so are scripts; what it refuses is withdrawn
        # (control.patching, ads.mending).
        if docs[i]["kind"] != "EnvoyFilter" and script(docs[i]) in known["inlineCode"] and accepted(docs[i]):
            out.append((docs, i))
    return out


def refused(docs, pem, directory):
    """What Envoy says of a proxy's resources; empty where it takes them."""
    directory.mkdir(parents=True, exist_ok=True)
    for proxy, sets in resources(world(docs, pem)).items():
        decoded = judge.decoded(sets)
        try:
            judge.invariants(decoded)
            assert judge.waited_for(decoded) == set()
            judge.validate_messages(decoded, directory, pem)
        except AssertionError as e:
            return f"{proxy}: {str(e)[:1500]}"
    return ""


@pytest.mark.parametrize("seed", range(BATCHES))
def test_what_validation_accepts_envoy_accepts(seed, tmp_path):
    rng, known, pem = random.Random(seed), pool(), judge.certificates()
    for n, (docs, i) in enumerate(mutants(rng, known, 4)):
        says = refused(docs, pem, tmp_path / str(n))
        assert not says, f"{yamldoc.dump(docs[i])}\n{says}"
