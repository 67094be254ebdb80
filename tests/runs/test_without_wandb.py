"""Runs with logger=jsonl need no wandb: not its module, nor its metadata."""

import importlib.metadata
import sys

import pytest

from kdx.runs.provenance import versions
from kdx.runs.run import run


def test_a_run_trains_and_ends_where_wandb_is_not_installed(tiny, monkeypatch: pytest.MonkeyPatch):
    known = importlib.metadata.version

    def version(package: str) -> str:
        if package == "wandb":
            raise importlib.metadata.PackageNotFoundError(package)
        return known(package)

    monkeypatch.setitem(sys.modules, "wandb", None)  # an import of it raises ImportError
    monkeypatch.setattr("kdx.runs.provenance.version", version)
    with pytest.raises(ImportError):
        __import__("wandb")
    result = run(tiny("method=supervised", "trainer.duration.steps=2", "evals.test.every=null"))
    assert (result.folder / "DONE").exists() and result.data["versions"]["wandb"] == "missing"
    assert versions()["torch"] == known("torch")
