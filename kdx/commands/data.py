"""`kdx data DATASET [key=value] ...`: the contents of a data set: sizes, classes, duplicates, statistics."""

import sys
from collections.abc import Sequence
from pathlib import Path

from kdx.config.compose import ConfigError, compose
from kdx.config.layout import register_networks, take_config_dirs
from kdx.config.validate import check
from kdx.core.errors import UserError
from kdx.core.notice import fail, stop

USAGE = """\
kdx data DATASET [dataset.key=value] ...

Prints sizes, classes, duplicates within and across splits, means and deviations, and inputs that cannot be read, and
draws sample pictures into outputs/data. `kdx list datasets` names the data sets.

Examples
  kdx data cifar100
  kdx data imagefolder dataset.folder=tiny-imagenet-200 dataset.num_classes=200
"""


def main(arguments: Sequence[str]) -> None:
    """Print the facts of a data set. Exits with 2 if the command is wrong, with 1 if the data is missing or damaged."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE, end="")
        sys.exit(0 if arguments else 2)
    name, *overrides = arguments
    name = name.removeprefix("dataset=")
    try:
        if "=" in name:
            raise UserError(f"the first word names the data set, found '{name}': kdx data cifar100 {name}")
        overrides = take_config_dirs(overrides)
        register_networks()
        config = compose([f"dataset={name}", *overrides]).config
        if problems := check(config["dataset"], "dataset"):
            raise ConfigError(problems)
    except ConfigError as error:
        stop(2, error.problems)
    except UserError as error:
        fail(2, error)
    from kdx.commands.data_facts import describe  # imports torch
    from kdx.runs.build import make

    try:
        for line in describe(make(config["dataset"]), Path(config["paths"]["outputs"]) / "data"):
            print(line, flush=True)
    except (UserError, ValueError, OSError) as error:
        fail(1, error)
