"""Freed memory is reused without new pages."""

import platform
import resource

import pytest
import torch

from kdx.engine.optim.memory import keep_freed_memory

TENSORS, FLOATS = 8, 2**20  # 4 MiB each, 8192 pages of 4 KiB together
PAGES = TENSORS * 4 * FLOATS // resource.getpagesize()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library keeps what it likes")
def test_large_tensors_made_again_have_the_pages_of_those_before():
    assert keep_freed_memory()
    faults = []
    for _ in range(8):  # first uses up memory left by other tests, until the allocator's state is stable
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        held = [torch.ones(FLOATS) for _ in range(TENSORS)]
        del held
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    assert max(faults[5:]) < PAGES / 4


def test_where_malloc_is_not_glibcs_nothing_happens(monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert not keep_freed_memory()
