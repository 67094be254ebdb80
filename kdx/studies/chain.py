"""A study of runs that start from each other's results, such as assistants and generations."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from kdx.runs.results import Protocol
from kdx.studies.grid import Grid
from kdx.studies.links import Links
from kdx.studies.options import Options, select
from kdx.studies.scales import Preset, chosen, presets
from kdx.tables.publish import Source


@dataclass(frozen=True, kw_only=True)
class Chain:
    """Runs of each link with each seed, and one table. A link may start from the directories of others, see `Links`:
    `teacher.checkpoint='{assistant}'`, or `teacher.members={a: {checkpoint: '{teacher}'}, b: {checkpoint: '{third}'}}`.

    Attributes:
        name: Directory of its files.
        title: Heading of the table.
        overrides: Overrides of all links.
        seeds: Seeds of each link.
        links: Overrides of each link, by its label.
        rows: Links that the table shows; None for all.
        baseline: Row that gains are measured against; None for none.
        columns: As in `Grid`.
        protocol: The epoch whose numbers the table shows.
        claims: Claims about the table, see `kdx.tables.claims`.
        scales: As in `Grid`.

    Raises:
        UserError: A link or a row does not exist, or links need each other.
    """

    accepts: ClassVar[frozenset[str]] = frozenset({"rows", "scale"})

    name: str
    title: str
    overrides: Sequence[str]
    seeds: Sequence[int]
    links: Mapping[str, Sequence[str]]
    rows: Sequence[str] | None
    baseline: str | None
    columns: Sequence[str]
    protocol: Protocol
    claims: Mapping[str, Any] = field(default_factory=dict)
    scales: Mapping[str, Preset] = field(default_factory=dict)
    _links: Links = field(init=False, repr=False, compare=False)
    _table: Grid = field(init=False, repr=False, compare=False)

    def __post_init__(self):
        object.__setattr__(self, "scales", presets(self.scales))
        links = Links(key="study.links", overrides=self.overrides, seeds=self.seeds, links=self.links)
        rows = list(self.links) if self.rows is None else self.rows
        for label in rows:
            links.must_exist(label, "study.rows")
        table = Grid(
            name=self.name,
            title=self.title,
            overrides=self.overrides,
            seeds=self.seeds,
            seed_overrides=[],
            rows={label: self.links[label] for label in rows},
            baseline=self.baseline,
            cost_row=None,
            teacher_row=False,
            columns=self.columns,
            protocol=self.protocol,
            claims=self.claims,
        )
        object.__setattr__(self, "_links", links)
        object.__setattr__(self, "_table", table)

    def order(self) -> list[list[str]]:
        """The links in rounds, see `Links.order`."""
        return self._links.order()

    def execute(self, paths: Mapping[str, str], options: Options) -> list[str]:
        """Run the links that are missing, round by round, and write and print the table.

        Args:
            paths: The config's paths.
            options: Options of the command line; `rows` includes the links that the rows need.

        Returns:
            A line for each failure.
        """
        if options.scale is not None:
            return self._at(options.scale).execute(paths, replace(options, scale=None))
        place = options.place(paths)
        shown = select(options.rows, list(self._table.rows), "rows")
        wanted = self._links.with_needs(shown)
        self.check(wanted, [*place, *options.overrides])
        found, made, lines = self._links.run(wanted, place, options)
        results = {
            label: {seed: found[label, seed][1] for seed in self.seeds if (label, seed) in found} for label in shown
        }
        if not any(results.values()):
            return lines or ["no run has a result"]
        names = [f"{label}, seed {seed}" for label in shown for seed in self.seeds]
        told = {name: line.partition(": ")[2] for name in names for line in lines if line.startswith(f"{name}: ")}
        source = Source(type(self).__name__, self.protocol, made)
        seeds = {label: list(self.seeds) for label in shown}
        self._table.present(results, told, paths, options, source, seeds, None)
        return lines

    def finished(self, paths: Mapping[str, str], options: Options) -> tuple[int, int]:
        """Number of finished runs, and of all runs."""
        if options.scale is not None:
            return self._at(options.scale).finished(paths, replace(options, scale=None))
        shown = select(options.rows, list(self._table.rows), "rows")
        return self._links.finished(self._links.with_needs(shown), options.place(paths), options)

    def _at(self, name: str) -> "Chain":
        """The study at a scale."""
        scale = chosen(self.scales, name)
        own = scale.applied(self.links)
        return replace(self, name=f"{self.name}/{name}", seeds=scale.seeds, links=own, scales={}, claims={})

    def check(self, labels: Sequence[str], overrides: Sequence[str]) -> None:
        """Raise ConfigError where the overrides of a link make no valid config."""
        self._links.check(labels, overrides)
