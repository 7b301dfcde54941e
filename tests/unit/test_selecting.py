"""Objects that choose workloads are found by the workload's labels."""

import random

import meshes as mesh
import pytest

from lateen.mesh.model import Mesh

NAMES = ("app", "version", "team")


def policies(chance):
    out = []
    for i in range(40):
        labels = {name: chance.choice("ab") for name in chance.sample(NAMES, chance.randint(0, 3))}
        selector = f"selector: {{matchLabels: {labels}}}" if labels else "{}"
        space = chance.choice(("default", "istio-system", "other"))
        doc = f"kind: AuthorizationPolicy\nmetadata: {{name: p{i}, namespace: {space}}}\nspec: {{{selector}}}\n"
        out.append(doc.replace("{{}}", "{}"))
    return "---\n".join(out)


@pytest.mark.parametrize("seed", range(5))
def test_each_workload_has_the_policies_whose_selectors_it_meets(seed):
    chance = random.Random(seed)
    found = mesh.objects(policies(chance))
    asked = Mesh(found)
    for _ in range(30):
        labels = {name: chance.choice("ab") for name in chance.sample(NAMES, chance.randint(0, 3))}
        expected = {
            ref
            for ref, policy in found.authorization_policies.items()
            if ref[0] in ("default", "istio-system")
            and labels.items() >= (policy.spec.selector.match_labels.items() if policy.spec.selector else set())
        }
        assert {(p.ref.namespace, p.ref.name) for p in asked.authorization("default", labels)} == expected


def test_a_workload_does_not_read_its_neighbours_policies():
    asked = Mesh(mesh.objects(policies(random.Random(1))))
    every = asked.objects.authorization_policies
    read = asked._authorization.near("default", {"app": "c"})
    assert {p.ref.name for p in read} == {
        p.ref.name for p in every.values() if p.ref.namespace == "default" and not p.spec.selector
    }
