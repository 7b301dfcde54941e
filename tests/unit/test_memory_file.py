"""Files for libraries that read only from files, where there is no place for them."""

import os
import ssl
import tempfile

import pytest

from lateen.kit import certs, memory_file, times
from lateen.kube import auth


@pytest.fixture(params=[True, False], ids=["Linux", "another system"])
def system(request, monkeypatch):
    if not request.param:
        monkeypatch.delattr(os, "memfd_create")
    return request.param


def test_a_file_is_there_with_its_content_and_gone_afterwards(system):
    with memory_file.memory_file(b"text") as path:
        for _ in range(2):  # a certificate's chain and its key are read from one file
            with open(path, "rb") as file:
                assert file.read() == b"text"
        assert path.startswith("/proc/") is system
    assert not os.path.exists(path)


def test_a_key_is_loaded_where_nothing_can_be_written(monkeypatch):
    """readOnlyRootFilesystem: No usable temporary directory found in ['/tmp', '/var/tmp', '/usr/tmp', '/']"""

    def none():
        raise FileNotFoundError("no usable temporary directory")

    monkeypatch.setattr(tempfile, "gettempdir", none)
    monkeypatch.setattr(tempfile, "_get_default_tempdir", none)
    pair = certs.authority("test", times.now())
    auth.load_pair(ssl.create_default_context(), pair.certificate.encode(), pair.key.encode())
