"""Seeds of tests: each test draws from streams of its own, whatever ran before it."""

import os
import random
import zlib

import numpy as np
import torch


def own_seed(name: str) -> int:
    """Seed of a test or module by its name; KDX_TEST_SEED gives all of them others."""
    return (zlib.crc32(name.encode()) + int(os.environ.get("KDX_TEST_SEED", "0"))) % 2**32


def seed_streams(seed: int) -> None:
    """Start the global streams of torch, numpy and Python."""
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)
