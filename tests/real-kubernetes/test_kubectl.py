"""What kubectl shows of the embedded cluster is what it shows of Kubernetes itself."""

import building
import pytest
from comparing import differences, expected, typed
from world import kubectls

pytestmark = pytest.mark.skipif(building.VERSION != building.COMPARED, reason=f"compared with {building.COMPARED} only")


def test_kubectl_shows_the_same_of_both(mesh, embedded, tmp_path):
    (tmp_path / "kubectl").symlink_to(kubectls()[-1])
    found = differences(typed(embedded, tmp_path), typed(mesh, tmp_path))
    known = expected()
    new = {line: diff for line, diff in found.items() if line not in known}
    assert not new, "\n".join(f"$ {line}\n" + "\n".join(diff) for line, diff in new.items())
    equal = [line for line, reason in known.items() if line not in found and not reason.startswith("sometimes: ")]
    assert not equal, "what is known to differ does not:\n" + "\n".join(equal)
