"""Provenance of a result: code, versions, machine."""

import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import kdx

PACKAGES = ("torch", "torchvision", "timm", "hydra-core", "omegaconf", "numpy", "wandb")


@cache
def commit() -> dict[str, Any]:
    """Commit of the code, and whether tracked files differ from it; both None outside a git checkout."""
    root = Path(kdx.__file__).resolve().parent.parent

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() != root:
            return {"commit": None, "dirty": None}
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain", "-uno"))}
    except (OSError, subprocess.SubprocessError):
        return {"commit": None, "dirty": None}


def versions() -> dict[str, str]:
    """Versions of kdx, of Python and of the packages that results depend on; "missing" for one that is not there."""
    return {"kdx": kdx.__version__, "python": platform.python_version()} | {p: _version(p) for p in PACKAGES}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"


def machine(device: torch.device) -> dict[str, Any]:
    """The training device, and the number of CPU threads, which affects rounding."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu()
    return {"type": device.type, "name": name, "threads": torch.get_num_threads()}


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
