"""CNI plugins that a node runs after its own network: their failures, and what is undone then."""

import asyncio
import json
import os
from pathlib import Path

import pytest

from lateen.cluster.kubelet.chained import Plugins
from lateen.kit import tasks

POD = {"metadata": {"namespace": "shop", "name": "web", "uid": "u"}, "spec": {}}
LOGS = 'echo "$0 $CNI_COMMAND" | sed "s|.*/||" >> "$CNI_PATH/calls"\n'


@pytest.fixture
def node(tmp_path):
    """Makes a node with these plugins (name -> what its script does after it has written down the call)."""

    def made(**scripts):
        plugins = Plugins(tmp_path, False)
        plugins.prepare()
        for name, script in scripts.items():
            path = plugins.bin / name
            path.write_text(f"#!/bin/sh\n{LOGS}{script}\n")
            path.chmod(0o755)
        listed = [{"type": "lateen"}, *({"type": name} for name in scripts)]
        conf = {"cniVersion": "1.0.0", "name": "lateen", "plugins": listed}
        (plugins.conf / "10-lateen.conflist").write_text(json.dumps(conf))
        return plugins

    return made


def calls(plugins):
    return (plugins.bin / "calls").read_text().splitlines()


@pytest.mark.parametrize("output", ["done", "[]", "{"])
def test_output_that_is_no_result_is_an_error_that_names_the_plugin(node, output):
    plugins = node(odd=f"cat >/dev/null; echo '{output}'")
    with pytest.raises(OSError, match="the CNI plugin odd has printed a result that is not"):
        asyncio.run(plugins.add(POD, "u", "10.0.0.1"))


def test_after_a_failed_add_all_plugins_are_told_to_delete(node):
    plugins = node(first="cat", second="""cat >/dev/null; echo '{"msg": "no '$CNI_COMMAND'"}'; exit 1""")
    with pytest.raises(OSError, match="second has failed: no ADD"):
        asyncio.run(plugins.add(POD, "u", "10.0.0.1"))
    assert calls(plugins) == ["first ADD", "second ADD", "second DEL", "first DEL"]


def test_delete_gets_the_result_of_add_after_a_restart_of_the_node(node, tmp_path):
    plugins = node(last="""test $CNI_COMMAND = ADD && echo '{"ips": [], "mine": 1}' || cat > "$CNI_PATH/deleted" """)
    asyncio.run(plugins.add(POD, "u", "10.0.0.1"))
    restarted = Plugins(tmp_path, False)
    asyncio.run(restarted.remove(POD, "u"))
    found = json.loads((plugins.bin / "deleted").read_text())
    assert (found["name"], found["type"], found["cniVersion"]) == ("lateen", "last", "1.0.0")
    assert found["prevResult"] == {"ips": [], "mine": 1}
    asyncio.run(restarted.remove(POD, "u"))  # a second time, there is nothing left of it
    assert "prevResult" not in json.loads((plugins.bin / "deleted").read_text())


def test_the_first_file_counts_whether_it_is_a_list_or_one_plugin(node):
    plugins = node(one="cat")
    (plugins.conf / "00-one.conf").write_text('{"cniVersion": "1.0.0", "name": "n", "type": "one"}')
    asyncio.run(plugins.add(POD, "u", "10.0.0.1"))
    assert calls(plugins) == ["one ADD"]
    (plugins.conf / "00-one.conf").write_text('{"plugins": [{"name": "no type"}]}')
    with pytest.raises(OSError, match=r"00-one.conf: plugins must be a list of plugins"):
        asyncio.run(plugins.add(POD, "v", "10.0.0.2"))


def test_a_cancelled_add_ends_the_plugin_and_its_children_before_delete(node):
    waits = 'if [ $CNI_COMMAND = ADD ]; then sleep 100 & echo $! > "$CNI_PATH/child"; mkfifo "$CNI_PATH/up"; wait; fi'
    gone = 'if [ $CNI_COMMAND = DEL ]; then kill -0 $(cat "$CNI_PATH/parent") && echo alive >> "$CNI_PATH/calls"; fi'
    plugins = node(slow=f'[ $CNI_COMMAND = DEL ] || echo $$ > "$CNI_PATH/parent"\n{waits}\n{gone}\ntrue')

    async def cancelled():
        adding = tasks.spawn(plugins.add(POD, "u", "10.0.0.1"), "ADD")
        while not (plugins.bin / "up").exists():
            await asyncio.sleep(0.01)
        adding.cancel()
        with pytest.raises(asyncio.CancelledError):
            await adding

    asyncio.run(cancelled())
    assert calls(plugins) == ["slow ADD", "slow DEL"]
    assert ended(int((plugins.bin / "child").read_text()))


def ended(pid):
    """A process whose parent has been killed may wait for its new parent as a zombie."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[0] in "ZX"
    except (ProcessLookupError, FileNotFoundError):
        return True
