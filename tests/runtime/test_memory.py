import platform
from pathlib import Path

import pytest

from dd_jax.runtime import memory

STATM = Path("/proc/self/statm")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc alone is asked to return memory")
def test_freed_memory_returned():
    def pages() -> int:
        return int(STATM.read_text().split()[1])

    blocks = [bytes(1000) for _ in range(100_000)]
    kept = blocks[::1000]  # in the way of returning all of it at once
    del blocks
    before = pages()
    memory.return_freed()
    assert pages() < before - 10_000 and len(kept) == 100
