"""Freed memory is used again without new pages."""

import platform
import resource

import pytest
import torch

from kdx.engine.memory import keep_freed_memory

FLOATS = 2**23  # 32 MiB, 8192 pages of 4 KiB
PAGES = 4 * FLOATS // resource.getpagesize()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library keeps what it likes")
def test_a_large_tensor_made_again_has_the_pages_of_the_one_before():
    assert keep_freed_memory()
    faults = []
    for _ in range(6):  # what other tests left is used up first
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(FLOATS)
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    assert max(faults[3:]) < PAGES / 8


def test_where_malloc_is_not_glibcs_nothing_happens(monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert not keep_freed_memory()
