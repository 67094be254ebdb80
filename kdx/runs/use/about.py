"""Facts of a run's network for programs that use it without kdx."""

from pathlib import Path
from typing import Any

from kdx import __version__
from kdx.config.identity import identity
from kdx.core.errors import UserError, reason
from kdx.core.notice import notice
from kdx.core.pretrained import TOKENIZER, tokenizer_file
from kdx.core.spec import Images, Tokens
from kdx.core.task import LABELS
from kdx.data.dataset import ImageDataset
from kdx.runs.use.answers import answer_names, label_limits
from kdx.runs.use.given import resize_of
from kdx.runs.use.stored import Stored
from kdx.tasks.values import Values

ABOUT = "model.json"


def about(run: Stored, file: str) -> dict[str, Any]:
    """The facts as JSON values.

    Args:
        run: The run.
        file: Name of the network's file.
    """
    inputs, task = run.dataset.inputs, run.task
    facts: dict[str, Any] = {
        "file": file,
        "run": run.folder.resolve().name,
        "identity": identity(run.config),
        "kdx": __version__,
        "metrics": run.result["metrics"][run.protocol],
        "net": run.config.student.net,
        "task": task.kind,
        "outputs": answer_names(run),
    }
    if task.kind == LABELS:
        try:  # a label holds where its logit reaches the threshold
            facts["thresholds"] = label_limits(run, run.light.settings.eval_batch_size).tolist()
        except UserError as error:
            notice(f"{ABOUT} states no thresholds: {reason(error)}")
    if isinstance(task, Values):  # a value is its output times std plus mean
        facts["values"] = {"mean": list(task.mean), "std": list(task.std)}
    if isinstance(inputs, Tokens):
        facts["texts"] = {
            "tokenizer": TOKENIZER,
            "max_length": inputs.length,
            "pad_id": inputs.pad_id,
            "pairs": inputs.pairs,
        }
    elif isinstance(inputs, Images) and isinstance(run.dataset, ImageDataset):
        # pixels from 0 to 1, unless they have units of their own, minus mean and divided by std
        facts["images"] = {
            "shape": list(inputs.shape),
            "resize": None if run.dataset.has_own_units else resize_of(run, inputs),
            "mean": list(inputs.mean),
            "std": list(inputs.std),
        }
    return facts


def tokenizer_of(run: Stored) -> Path:
    """The tokenizer file of a run on texts."""
    return tokenizer_file(str(run.config.dataset["tokenizer"]), "dataset.tokenizer").path
