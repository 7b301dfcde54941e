"""Files without a file system, for libraries that read only from files."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def memory_file(data: bytes) -> Iterator[str]:
    """The path of a file with that content, for as long as the context lasts: private keys never touch a disk, and a
    container may have no place to write to (``readOnlyRootFilesystem``). A temporary file where the system has no
    ``memfd_create`` (memfd_create(2))."""
    if not hasattr(os, "memfd_create"):
        with tempfile.NamedTemporaryFile() as file:  # mode 0600
            file.write(data)
            file.flush()
            yield file.name
        return
    with open(os.memfd_create("lateen", os.MFD_CLOEXEC), "wb") as file:
        file.write(data)
        file.flush()
        yield f"/proc/self/fd/{file.fileno()}"
