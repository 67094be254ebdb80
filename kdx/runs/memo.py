"""Which memo belongs to a run's teacher."""

from pathlib import Path
from typing import Any

import torch

from kdx.config.compose import Config
from kdx.config.identity import fingerprint
from kdx.data.loaders import Loaders
from kdx.models.probe import probe
from kdx.models.teachers.black_box import BlackBoxTeacher
from kdx.models.teachers.frozen import Frozen
from kdx.models.teachers.memo import MIN_BATCH, Memo, take_rows
from kdx.models.teachers.memo_table import MemoTable
from kdx.runs.build import stream_seed
from kdx.runs.results import write_json

# Of a data set, what chooses among its examples changes none of them
CHOICE = (
    "fraction",
    "fraction_seed",
    "val_fraction",
    "val_seed",
    "train_subset",
    "download",
    "verify",
    "index",
    "at_once",
)


def memoised(config: Config, teacher: Frozen, checksum: str, loaders: Loaders, device: torch.device) -> Memo:
    """The teacher with the memo that belongs to it; shared by all runs that ask the same questions of the same teacher.

    Args:
        config: Prepared, so that the augmentation has views by number.
        teacher: As it is asked, optimised or not.
        checksum: Of its weights.
        loaders: Of the run.
        device: Where it computes.
    """
    settings = config["teacher"]
    facts = _facts(config, checksum, loaders, device)
    key = fingerprint(facts)
    folder = Path(config["paths"]["memos"]) / f"{config['dataset']['name']}-{key}"
    shapes = probe(BlackBoxTeacher(teacher, settings["memo_features"]), loaders.spec.inputs, device)
    sizes = [shapes.logits[0], *(shapes.features[role][0] for role in settings["memo_features"])]
    rows = loaders.num_views
    assert rows is not None
    table = MemoTable(folder, rows, sum(sizes), settings["memo_dtype"])
    write_json(folder / "memo.json", {**facts, "width": sum(sizes)})  # for who looks into the folder
    return Memo(teacher, settings["memo_features"], sizes, table)


def _facts(config: Config, checksum: str, loaders: Loaders, device: torch.device) -> Config:
    """All that an answer, bit by bit, or its place depends on."""
    teacher, dataset = config["teacher"], config["dataset"]
    facts: dict[str, Any] = {
        "teacher": {"sha256": checksum, **{key: teacher[key] for key in ("net", "mean", "std", "optimize")}},
        "data": {key: value for key, value in dataset.items() if key not in CHOICE},
        "views": [loaders.view_space, loaders.num_views],
        "kept": {"features": list(teacher["memo_features"]), "dtype": teacher["memo_dtype"]},
        "computed": {
            "device": device.type,
            "channels_last": config["trainer"]["channels_last"],
            "torch": torch.__version__,
        },
    }
    if teacher["optimize"] == "int8":
        # the ranges of its integers come from examples of the run
        facts["calibration"] = {
            "examples": teacher["calibration_examples"],
            "dataset": dataset,
            "transfer": config["transfer"],
            "augmentation": config["augmentation"],
            "data_seed": stream_seed(config, "data_seed"),
            "batch_size": config["trainer"]["batch_size"],
        }
    return facts


@torch.no_grad()
def agrees(teacher: Frozen, loaders: Loaders, device: torch.device) -> bool:
    """Whether, here, the teacher gives an example the same bits in the batches that a memo asks as in the run's.

    They have other sizes, and other examples at its place.
    """
    batch = next(iter(loaders.train.epoch(0)))
    inputs = batch.input_tensor.to(device)
    whole = teacher(inputs).logits
    order = torch.randperm(len(batch), generator=torch.Generator().manual_seed(0))
    sizes = {min(size, len(batch)) for size in (MIN_BATCH, MIN_BATCH + 1, 2 * MIN_BATCH + 5)}
    parts = [order[:size] for size in sizes]
    return all(torch.equal(whole[part.to(device)], teacher(take_rows(inputs, part)).logits) for part in parts)
