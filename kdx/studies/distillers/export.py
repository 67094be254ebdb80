"""A search's best distiller as a method of its own: `method=found/NAME`."""

from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import OmegaConf

from kdx.core.files import as_file_name, atomic_write
from kdx.studies.distillers.history import History, Trial
from kdx.studies.distillers.space import Space

if TYPE_CHECKING:
    from kdx.studies.distillers.findings import Findings

CONFIGS = "configs"


def export(
    folder: Path, study: str, name: str, seed: int, space: Space, history: History, findings: "Findings"
) -> Path | None:
    """Write `configs/method/found/{search}_{seed}.yaml` below a study's folder; None if the search found nothing.

    `kdx train --config-dir FOLDER/configs method=found/NAME` trains it. The package's own configs stay as they are.

    Args:
        folder: The study's folder.
        study: Name of the study.
        name: Name of the search.
        seed: Seed of the search.
        space: Its space.
        history: Its history.
        findings: Full-length runs.
    """
    best = history.best()
    if best is None:
        return None
    target = folder / CONFIGS / "method" / "found" / f"{as_file_name(name).replace(' ', '_')}_{seed}.yaml"
    target.parent.mkdir(parents=True, exist_ok=True)
    metric = findings.study.metric
    form, final = findings.shown[metric], findings.winners(name, metric).get(seed)
    lines = [
        f"# acronym: {name} {seed}",
        "# paper: none",
        "# year: none",
        f"# link: none (found by kdx study study={study})",
        "# needs: " + ("logits" if space.inputs[best.genotype.input] == "logits" else "features"),
        f"# source: search '{name}' with seed {seed}: trial {best.number} of {len(history.trials)}, "
        f"{history.spent} of them trained",
        f"# {best.genotype}",
        f"# fitness {best.fitness:.4f} on the validation split: "
        + ", ".join(f"{part} {value:.4f}" for part, value in best.measured.items()),
    ]
    if final is not None:
        lines.append(
            f"# {form.heading} at full length: {form.show(final)}, mean over {len(findings.study.final_seeds)} seeds"
        )
    lines.append("# Its ancestors:")
    lines += [f"#   {_line(trial)}" for trial in ancestors(history, best)]
    with atomic_write(target) as file:
        file.write(
            ("\n".join(lines) + "\n" + OmegaConf.to_yaml(OmegaConf.create(space.method(best.genotype)))).encode()
        )
    return target


def ancestors(history: History, trial: Trial) -> list[Trial]:
    """A trial and all its ancestors, from the first to the last."""
    by_number = {t.number: t for t in history.trials}
    found: dict[int, Trial] = {}
    waiting = [trial.number]
    while waiting:
        number = waiting.pop()
        if number not in found:
            found[number] = by_number[number]
            waiting += by_number[number].parents
    return [found[number] for number in sorted(found)]


def _line(trial: Trial) -> str:
    parents = f" of {' and '.join(map(str, trial.parents))}" if trial.parents else ""
    fitness = "none" if trial.fitness is None else f"{trial.fitness:.4f}"
    return f"{trial.number} ({trial.origin}{parents}), fitness {fitness}: {trial.genotype}"
