"""Presets of a study: a short test beside the whole study."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kdx.core.errors import UserError, did_you_mean


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A preset of a study's runs.

    Attributes:
        overrides: Overrides of every run, after the study's own.
        seeds: Seeds of each row.
        rows: Overrides of single rows or links, by label, after those.
        paper: Whether these are the settings of the published numbers; only then a paper's table has verdicts.
    """

    overrides: Sequence[str]
    seeds: Sequence[int]
    rows: Mapping[str, Sequence[str]] = field(default_factory=dict)
    paper: bool = False

    def applied(self, rows: Mapping[str, Sequence[str]]) -> dict[str, Sequence[str]]:
        """Rows of a study with these overrides. Raises UserError if one of `rows` is no row of it."""
        if strange := [label for label in self.rows if label not in rows]:
            raise UserError(f"study.scales: there is no row '{strange[0]}'{did_you_mean(strange[0], rows)}")
        return {label: [*own, *self.overrides, *self.rows.get(label, ())] for label, own in rows.items()}


def presets(given: Mapping[str, Preset | Mapping[str, Any]], published: bool = False) -> dict[str, Preset]:
    """The presets of a config, whose nodes may be plain mappings.

    Args:
        given: Presets by name.
        published: Whether the study has published numbers.

    Raises:
        UserError: A preset has no seeds, or `paper` in a study without published numbers.
    """
    found = {name: one if isinstance(one, Preset) else Preset(**one) for name, one in given.items()}
    for name, one in found.items():
        if not one.seeds:
            raise UserError(f"study.scales.{name}.seeds: at least one seed is needed")
        if one.paper and not published:
            raise UserError(f"study.scales.{name}.paper: this study has no published numbers to compare with")
    return found


def chosen(scales: Mapping[str, Preset], name: str) -> Preset:
    """The preset of a name. Raises UserError if the study has none."""
    if name not in scales:
        raise UserError(f"scale={name}: this study has {', '.join(scales) or 'no scales'}")
    return scales[name]


def latest(overrides: Sequence[str]) -> list[str]:
    """The last override of each key, in the order of the keys: Hydra refuses two options of one group.

    Example:
        >>> latest(["dataset=sst2", "seed=1", "dataset=phrases"])
        ['dataset=phrases', 'seed=1']
    """
    return list({override.split("=", 1)[0]: override for override in overrides}.values())
