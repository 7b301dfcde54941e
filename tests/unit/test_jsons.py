"""What is kept of encoded JSON."""

import tracemalloc

import pytest

from lateen.kit import jsons


@pytest.mark.parametrize("encode", [jsons.dumps, jsons.canonical])
def test_encoded_json_takes_no_more_memory_than_its_text(encode):
    value = {"a": "x" * 900}
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        kept = [encode(value) for _ in range(1000)]
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown < 1.3 * sum(map(len, kept))
