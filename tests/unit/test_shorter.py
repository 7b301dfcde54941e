"""RBAC rules in fewer conditions mean the same."""

import random

from envoy.config.rbac.v3 import rbac_pb2
from envoy.type.matcher.v3 import path_pb2, string_pb2

from lateen.xds.authz.shorter import shorter

SETS = {"and_rules": all, "and_ids": all, "or_rules": any, "or_ids": any}
PATHS = ["/a", "/a/b", "/ab", "/b", "/a?x=/b", "/?/a", "/b#/a", "/a/b?c", "", None]
TEXTS = [{"prefix": "/a"}, {"prefix": "/a/"}, {"exact": "/a"}, {"suffix": "b"}, {"prefix": "/?"}, {"prefix": "/b#"}]


def holds(one, ports, path):
    """Whether a condition holds, by the definition of Envoy's RBAC. ``ports``: those that count as the request's."""
    chosen = one.WhichOneof("rule" if isinstance(one, rbac_pb2.Permission) else "identifier")
    found = getattr(one, chosen)
    if chosen in SETS:
        return SETS[chosen](holds(m, ports, path) for m in (found.rules if "rules" in chosen else found.ids))
    if chosen.startswith("not_"):
        return not holds(found, ports, path)
    if chosen == "any":
        return True
    if chosen == "url_path":
        return path is not None and texts(found.path, path.partition("?")[0].partition("#")[0])
    if chosen == "header":
        if found.name == ":path":
            return path is not None and texts(found.string_match, path)
        return int(found.name) in ports
    return found in ports


def texts(matcher, text):
    kind = matcher.WhichOneof("match_pattern")
    wanted = getattr(matcher, kind)
    return {"prefix": text.startswith(wanted), "suffix": text.endswith(wanted), "exact": text == wanted}[kind]


def grown(chance, depth, kind):
    """A random condition."""
    permission = kind is rbac_pb2.Permission
    choices = ["leaf", "path", "all", "any", "not"] if depth else ["leaf", "path"]
    match chance.choice(choices):
        case "leaf" if permission:
            return kind(destination_port=chance.randrange(4))
        case "leaf":
            out = kind()
            out.header.name, out.header.present_match = str(chance.randrange(4)), True
            return out
        case "path":
            return kind(url_path=path_pb2.PathMatcher(path=string_pb2.StringMatcher(**chance.choice(TEXTS))))
        case "not":
            return kind(**{"not_rule" if permission else "not_id": grown(chance, depth - 1, kind)})
        case joined:
            members = [grown(chance, depth - 1, kind) for _ in range(chance.choice([1, 1, 2, 3]))]
            name = ("and_" if joined == "all" else "or_") + ("rules" if permission else "ids")
            return kind(**{name: kind.Set(**{"rules" if permission else "ids": members})})


def allowed(rules, ports, path):
    return {
        name: any(holds(p, ports, path) for p in policy.permissions)
        and any(holds(p, ports, path) for p in policy.principals)
        for name, policy in rules.policies.items()
    }


def test_rules_in_fewer_conditions_match_the_same_requests():
    chance = random.Random(7)
    both, less = set(), 0
    for _ in range(400):
        given = rbac_pb2.RBAC(action="DENY")
        for name in ("a", "b"):
            for kind, where in ((rbac_pb2.Permission, "permissions"), (rbac_pb2.Principal, "principals")):
                made = [grown(chance, 3, kind) for _ in range(chance.choice([1, 2]))]
                getattr(given.policies[name], where).extend(made)
        found = shorter(given)
        assert found.action == given.action
        less += len(given.SerializeToString()) - len(found.SerializeToString())
        for path in PATHS:
            ports = {i for i in range(4) if chance.random() < 0.5}
            wanted = allowed(given, ports, path)
            assert allowed(found, ports, path) == wanted, (given, found, ports, path)
            both |= set(wanted.values())
    assert both == {True, False}
    assert less > 0


def test_a_set_of_one_is_its_member_and_the_beginning_of_a_path_is_that_of_a_header():
    inner = rbac_pb2.Permission(url_path=path_pb2.PathMatcher(path=string_pb2.StringMatcher(prefix="/a/")))
    some = rbac_pb2.Permission(or_rules=rbac_pb2.Permission.Set(rules=[inner]))
    given = rbac_pb2.RBAC()
    given.policies["a"].permissions.add(and_rules=rbac_pb2.Permission.Set(rules=[some]))
    given.policies["a"].principals.add(any=True)
    (made,) = shorter(given).policies["a"].permissions
    assert (made.header.name, made.header.string_match.prefix) == (":path", "/a/")
