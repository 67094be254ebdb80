"""The training entry: `kdx train`, or `python -m kdx.train`.

Hydra composes and sweeps; this module checks what it composed and hands it to a run.
"""

import sys
from collections.abc import Sequence

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from kdx.config.compose import ConfigError, compose, config_dir, plain, points, register_networks
from kdx.core.errors import UserError

_failed: list[str] = []


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what the command line says and exit: 0 done, 1 a run failed, 2 the command is wrong."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    register_networks()
    if not _asks_about(arguments):
        _check(arguments)
    sys.argv = ["kdx train", *arguments]
    _hydra_main()
    if _failed:
        if len(_failed) > 1:
            print(f"kdx: {len(_failed)} runs failed", file=sys.stderr)
        sys.exit(1)


@hydra.main(config_path=str(config_dir()), config_name="train", version_base="1.3")
def _hydra_main(cfg: DictConfig) -> float | None:
    """One job; its return value is what a sweeper maximises or minimises."""
    hydra_config = HydraConfig.get()
    try:
        return _train(plain(cfg, dict(hydra_config.runtime.choices)))
    except KeyboardInterrupt:
        print("kdx: stopped; the same command resumes", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        _report(error, " ".join(hydra_config.overrides.task) if hydra_config.mode == RunMode.MULTIRUN else "")
        return None


def _train(composed) -> float | None:  # noqa: ANN001 - Composed, whose module is imported late in the program's life
    from kdx.studies.prepare import prepare  # torch comes with these
    from kdx.studies.run import run
    from kdx.studies.show import show

    result = run(prepare(composed))
    print(show(result))
    return result.metric("test/top1")


def _report(error: Exception, job: str) -> None:
    """A failed run in a line, or a line for each thing that is wrong; the traceback is in its directory."""
    _failed.append(job)
    prefix = f"kdx: {job}: " if job else "kdx: "
    if isinstance(error, UserError | ValueError | OSError):
        text = str(error) or type(error).__name__
    else:
        text = f"{type(error).__name__}: {error}; the traceback is in error.txt in the run's directory"
    for line in text.splitlines():
        print(prefix + line, file=sys.stderr)


def _asks_about(arguments: Sequence[str]) -> bool:
    """Whether the command asks Hydra for something instead of training."""
    asking = ("-h", "--help", "--hydra-help", "--version", "-i", "--info", "-c", "--cfg", "-sc", "--shell-completion")
    return any(a in asking or a.startswith(("--cfg=", "--info=", "--shell-completion=")) for a in arguments)


def _check(arguments: Sequence[str]) -> None:
    """Compose every value of every sweep once before the first run starts, and exit with all that is wrong."""
    flags = ("-m", "--multirun", "-r", "--run", "--resolve")
    unknown = [a for a in arguments if a.startswith("-") and a not in flags]
    overrides = [a for a in arguments if not a.startswith("-") and not a.startswith(("hydra.", "hydra/"))]
    problems = [f"unknown option '{a}'; see kdx train --help" for a in unknown]
    multirun = any(a in ("-m", "--multirun") for a in arguments)
    try:
        for point in points(overrides) if multirun else [overrides]:
            try:
                compose(point)
            except ConfigError as error:
                problems += error.problems
    except ConfigError as error:
        problems += error.problems
    for problem in dict.fromkeys(problems):
        print(f"kdx: {problem}", file=sys.stderr)
    if problems:
        sys.exit(2)


if __name__ == "__main__":
    main()
