"""Finds the memo of a run's teacher by the facts that its outputs depend on."""

from pathlib import Path
from typing import Any

import torch

from kdx.config.compose import Config
from kdx.config.identity import fingerprint
from kdx.config.schema import RunConfig
from kdx.core.files import as_file_name
from kdx.core.tree import map_tree
from kdx.data.dataset import SELECTION
from kdx.data.loaders import Loaders
from kdx.models.probe import probe
from kdx.models.teachers.black_box import BlackBoxTeacher
from kdx.models.teachers.frozen import Frozen
from kdx.models.teachers.memo import MIN_BATCH, Memo, take_rows
from kdx.models.teachers.memo_table import MemoTable
from kdx.runs.build import stream_seed
from kdx.runs.leader import run_on_leader
from kdx.runs.results import write_json
from kdx.runs.reuse.memo_folder import memo_folder
from kdx.runs.reuse.record import Known

# Keys of a data set that select examples or files, and do not change an example
CHOICE = (*SELECTION, "download", "verify", "index", "at_once")


def memoised(
    config: RunConfig,
    teacher: Frozen,
    checksum: str,
    loaders: Loaders,
    device: torch.device,
    known: Known | None = None,
) -> Memo:
    """The teacher with its memo. Runs with the same teacher, data and views share one memo.

    Args:
        config: Prepared; its augmentation numbers its views.
        teacher: The teacher as the run uses it, optimised or not.
        checksum: Checksum of its weights.
        loaders: Loaders of the run.
        device: Device of the teacher.
        known: Fingerprints of data sets, as in `kdx.runs.reuse.record.sources`.
    """
    settings = config.teacher
    assert settings is not None
    facts = _facts(config, checksum, loaders, device)
    named = Path(config.paths.memos) / f"{as_file_name(config.dataset['name'])}-{fingerprint(facts)}"
    folder = run_on_leader(lambda: memo_folder(config.plain(), named, loaders.splits.train, known))
    shapes = probe(BlackBoxTeacher(teacher, settings.memo_features), loaders.spec.inputs, device)
    sizes = [shapes.logits[0], *(shapes.features[role][0] for role in settings.memo_features)]
    rows = loaders.num_views
    assert rows is not None
    table = MemoTable(folder, rows, sum(sizes), settings.memo_dtype)
    # for people who open the folder; the program does not read it
    write_json(folder / "memo.json", {**facts, "width": sum(sizes)})
    return Memo(teacher, settings.memo_features, sizes, table)


def _facts(config: RunConfig, checksum: str, loaders: Loaders, device: torch.device) -> Config:
    """Everything that the bits of a stored output, or its row in the table, depend on."""
    teacher, dataset = config.teacher, config.dataset
    assert teacher is not None
    facts: dict[str, Any] = {
        "teacher": {"sha256": checksum, **{key: getattr(teacher, key) for key in ("net", "mean", "std", "optimize")}},
        "data": {key: value for key, value in dataset.items() if key not in CHOICE},
        "views": [loaders.view_space, loaders.num_views],
        "kept": {"features": list(teacher.memo_features), "dtype": teacher.memo_dtype},
        "computed": {
            "device": device.type,
            "channels_last": config.trainer["channels_last"],
            "torch": torch.__version__,
        },
    }
    if teacher.optimize == "int8":
        # calibration sets the integer ranges from examples of the run
        facts["calibration"] = {
            "examples": teacher.calibration_examples,
            "dataset": dataset,
            "transfer": config.transfer,
            "augmentation": config.augmentation,
            "data_seed": stream_seed(config, "data_seed"),
            "batch_size": config.trainer["batch_size"],
        }
    return facts


@torch.no_grad()
def agrees(teacher: Frozen, loaders: Loaders, device: torch.device) -> bool:
    """Whether, on this machine, the teacher's outputs are bit-identical in the memo's batches and in the run's.

    The memo's batches have other sizes and hold an example at another position.
    """
    batch = next(iter(loaders.train.epoch(0)))
    inputs = map_tree(lambda t: t.to(device), batch.inputs)
    whole = teacher(inputs).logits
    order = torch.randperm(len(batch), generator=torch.Generator().manual_seed(0))
    sizes = {min(size, len(batch)) for size in (MIN_BATCH, MIN_BATCH + 1, 2 * MIN_BATCH + 5)}
    parts = [order[:size] for size in sizes]
    return all(torch.equal(whole[part.to(device)], teacher(take_rows(inputs, part)).logits) for part in parts)
