"""The contract of a study: it runs the trainings that are missing and reports on all of them."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Protocol, runtime_checkable

from kdx.config.schema import RunConfig
from kdx.core.errors import UserError
from kdx.core.files import below
from kdx.pool.pool import look_up, run_all
from kdx.pool.task import Failure
from kdx.runs.results import Result
from kdx.studies.options import NARROWING, Options


@runtime_checkable
class Study(Protocol):
    """Many trainings that answer one question.

    A config names a class of this form: its fields are the keys of a file in `configs/study`, and `kdx study` calls
    `execute`. A study of your own lies in a folder that `--config-dir` names.

    Attributes:
        accepts: Options of the command line that this study applies, out of "scale", "rows", "columns" and "seeds". The
            other options apply to every study.
    """

    accepts: ClassVar[frozenset[str]]

    def execute(self, paths: Mapping[str, str], options: Options) -> list[str]:
        """Run what is missing, write the results below `paths["outputs"]` and print them.

        Args:
            paths: The config's paths.
            options: Options of the command line.

        Returns:
            A line for each failure.
        """
        ...


def run_missing(configs: Mapping[str, RunConfig], options: Options) -> tuple[dict[str, Result], list[Failure]]:
    """Run the configs that are not finished, as `run_all` does; with `only=render` nothing runs.

    Args:
        configs: Prepared configs by label.
        options: Options of the command line.
    """
    if options.only is not None:
        return look_up(configs)
    return run_all(configs, options.jobs, options.retry, options.together)


@runtime_checkable
class Counted(Protocol):
    """A study that counts its finished runs without running anything."""

    def finished(self, paths: Mapping[str, str], options: Options) -> tuple[int, int]:
        """Number of finished runs, and of all runs.

        Args:
            paths, options: As in `Study.execute`.
        """
        ...


def check_study(study: object, options: Options) -> Study:
    """The study itself, if it is one and applies every option that is set.

    Raises:
        UserError: The object is no study, its name leads out of its folder, or an option is set that the study does
            not apply.
    """
    if not isinstance(study, Study):
        raise UserError(
            f"study._target_: {type(study).__name__} is no study; a study has `accepts` and `execute(paths, options)`, "
            "see kdx.studies.study"
        )
    for owner in (study, getattr(study, "grid", None)):
        if isinstance(name := getattr(owner, "name", None), str):
            below(Path("studies"), name, "study.name")
    for name in NARROWING:
        if getattr(options, name) is not None and name not in study.accepts:
            known = ", ".join(sorted(study.accepts)) or "none of scale, rows, columns and seeds"
            raise UserError(f"{name}: a {type(study).__name__} study does not apply this option; it applies {known}")
    return study
