"""A study of a generalist, specialists of its confusable classes, and a student of both."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from kdx.config.compose import compose
from kdx.config.schema import RunConfig
from kdx.core.errors import UserError
from kdx.core.ranges import Count
from kdx.metrics.accuracy import correct, right_among
from kdx.runs.prepare import prepare
from kdx.runs.results import Result
from kdx.runs.run import train_teacher
from kdx.runs.teacher import find_weights, load_teacher
from kdx.studies.clusters import Clustering
from kdx.studies.options import Options
from kdx.studies.study import run_missing
from kdx.studies.trained import Evaluation
from kdx.studies.trained import logits as test_logits
from kdx.tables.footnotes import footnotes, pipes
from kdx.tables.gains import legend, show_gain
from kdx.tables.manifest import Made
from kdx.tables.metrics import Shown
from kdx.tables.multiplicity import survivors
from kdx.tables.publish import Source, publish
from kdx.tables.statistics import compare
from kdx.tables.table import Table

GENERALIST, AGAIN = "generalist", "generalist, trained again"
SPECIALISTS, Q = "specialists", "q of generalist and specialists"
OF_GENERALIST, OF_Q = "student of the generalist", "student of q"
# row, its baseline, and column of each comparison
COMPARED = (
    (SPECIALISTS, GENERALIST, "inside/test/top1"),
    (SPECIALISTS, AGAIN, "inside/test/top1"),
    (Q, GENERALIST, "inside/test/top1"),
    (Q, GENERALIST, "test/top1"),
    (Q, AGAIN, "test/top1"),
    (OF_Q, OF_GENERALIST, "test/top1"),
)
Key = tuple[str, int]  # a run's name, and its seed
Scores = dict[str, dict[str, float]]  # by row and column


@dataclass(frozen=True, kw_only=True)
class Specialists:
    """Repeats section 5 of Hinton et al. for each seed, and writes one table.

    A generalist is trained, and the classes that it confuses are clustered. A specialist for each cluster of at least
    two classes starts from the generalist's weights. The distribution q that minimises the divergence to all of them
    teaches one student, and the generalist alone teaches another. Specialists train longer than the generalist, so the
    table also shows the generalist after the same number of further steps. Each training is an ordinary run, known by
    its config and the content of its initial weights, so an interrupted study continues where it stopped.

    "Inside" is the paper's conditional accuracy: over the test examples of a cluster, among its classes alone. All
    numbers are of the last epoch.

    Attributes:
        name: Directory of its files.
        title: Heading of the table.
        overrides: Overrides of all runs.
        seeds: Seeds of all runs.
        clustering: Finds the clusters.
        generalist, specialist, student: Overrides of these runs.
        agreement: Further overrides of the student of q.

    References:
        Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015, section 5 (which ends at q; a
        student of it is this program's). https://arxiv.org/abs/1503.02531
    """

    accepts: ClassVar[frozenset[str]] = frozenset()

    name: str
    title: str
    overrides: Sequence[str]
    seeds: Sequence[Count]
    clustering: Clustering
    generalist: Sequence[str]
    specialist: Sequence[str]
    student: Sequence[str]
    agreement: Sequence[str]

    def execute(self, paths: Mapping[str, str], options: Options) -> list[str]:
        """Run what is missing, in three rounds, and write and print the table. See `Study.execute`."""
        place = options.place(paths)
        self.check([*place, *options.overrides])
        found: dict[Key, Result] = {}
        made: list[Made] = []
        lines: list[str] = []

        def run(recipes: Mapping[Key, Sequence[str]]) -> dict[Key, RunConfig]:
            full = {
                (label, seed): [*self.overrides, f"seed={seed}", *own, *options.overrides]
                for (label, seed), own in recipes.items()
            }
            configs = {key: prepare(compose([*place, *overrides])) for key, overrides in full.items()}
            names = {f"{label}, seed {seed}": (label, seed) for label, seed in configs}
            named = {name: configs[key] for name, key in names.items()}
            done = run_missing(named, options)
            found.update({names[name]: result for name, result in done[0].items()})
            made.extend(Made(name, names[name][0], full[names[name]], result) for name, result in done[0].items())
            lines.extend(map(str, done[1]))
            return configs

        whole = run({(GENERALIST, seed): self.generalist for seed in self.seeds})
        sets: dict[int, list[list[int]]] = {}
        members: dict[int, dict[str, str]] = {}  # of each seed, by name
        recipes: dict[Key, Sequence[str]] = {}
        for seed in [seed for seed in self.seeds if (GENERALIST, seed) in found]:
            start = found[GENERALIST, seed]
            sets[seed], shares = self._clusters(whole[GENERALIST, seed], start)
            members[seed] = {}
            recipes[AGAIN, seed] = [*self.generalist, _from("student", start)]
            for i, (classes, share) in enumerate(zip(sets[seed], shares, strict=True), 1):
                recipes[f"specialist{i}", seed] = [*self.specialist, *_special(classes), _from("student", start)]
                members[seed][f"specialist{i}"] = f"special_classes: {list(classes)}, special_prior: {share}"
        special = run(recipes)
        recipes = {}
        for seed, of in members.items():
            if not all((name, seed) in found for name in (AGAIN, *of)):
                continue
            every = [f"{GENERALIST}: {{{_place(found[GENERALIST, seed])}}}"]
            for name, knows in of.items():
                trained = special[name, seed].transfer["special_share"]
                every.append(f"{name}: {{{_place(found[name, seed])}, {knows}, special_share: {trained}}}")
            recipes[OF_GENERALIST, seed] = [*self.student, _from("teacher", found[GENERALIST, seed])]
            recipes[OF_Q, seed] = [*self.student, *self.agreement, f"teacher.members={{{', '.join(every)}}}"]
        taught = run(recipes)
        complete = [seed for seed in sets if all((row, seed) in found for row in (OF_GENERALIST, OF_Q))]
        if not complete:
            return lines or ["no seed is complete"]
        scores, inside, missing = {}, [], []
        for seed in complete:
            configs = {row: (special | taught)[row, seed] for row in (AGAIN, OF_GENERALIST, OF_Q)}
            data = Evaluation(configs[OF_Q])
            nets = {row: data.student(config, found[row, seed].student) for row, config in configs.items()}
            scores[seed], each = self._measure(configs[OF_Q], data, nets, sets[seed])
            inside += [[str(seed), *cells] for cells in each]
        for seed in [seed for seed in self.seeds if seed not in complete]:
            wanting = [row for row in (GENERALIST, AGAIN, OF_GENERALIST, OF_Q) if (row, seed) not in found]
            missing.append(f"missing: seed {seed}: no result of {', '.join(wanting)}")
        source = Source(type(self).__name__, "last", made)
        runs = [r.data for (_, seed), r in found.items() if seed in complete]
        self._present(scores, inside, missing, runs, paths, source)
        return lines

    def check(self, overrides: Sequence[str]) -> None:
        """Raise ConfigError where the overrides of a run make no valid config."""
        some = "teacher.members={all: {}, some: {special_classes: [0,1]}}"
        links = ([*self.specialist, *_special([0, 1])], self.student, [*self.student, *self.agreement, some])
        for own in (self.generalist, *links):
            prepare(compose([*self.overrides, *own, *overrides]))

    def _clusters(self, config: RunConfig, generalist: Result) -> tuple[list[list[int]], list[float]]:
        """The sets of at least two classes, and the share of each in the training set."""
        data = Evaluation(config)
        network = data.student(config, generalist.student)
        found = self.clustering.find(network, data.batches(self.clustering.split)).sets
        labels = data.loaders.spec.labels
        assert labels is not None
        sets = [classes for classes in found if len(classes) > 1]
        if not sets:
            raise UserError(f"study.clustering: each of the {len(found)} clusters is a single class; take fewer")
        return sets, [float(torch.isin(labels, torch.tensor(classes)).double().mean()) for classes in sets]

    def _measure(
        self, config: RunConfig, data: Evaluation, students: Mapping[str, nn.Module], sets: Sequence[Sequence[int]]
    ) -> tuple[Scores, list[list[str]]]:
        """Numbers of a seed by row and column, and a line for each cluster."""
        q = load_teacher(config, find_weights(config, train_teacher), data.loaders, data.device).network
        nets = {Q: q, **dict(q.get_submodule("members").named_children()), **students}
        logits, labels = test_logits(nets, data.batches("test"))
        scores: Scores = {}
        for row in (GENERALIST, Q, *students):
            right = [right_among(logits[row][:, classes], labels, classes) for classes in sets]
            scores[row] = {
                "test/top1": float(correct(logits[row], labels).double().mean()),
                "inside/test/top1": float(torch.cat(right).double().mean()),
                "test/nll": float(nn.functional.cross_entropy(logits[row].double(), labels)),
            }
        lines, after = [], []
        for i, classes in enumerate(sets, 1):
            before = right_among(logits[GENERALIST][:, classes], labels, classes)
            after.append(right_among(logits[f"specialist{i}"][:, :-1], labels, classes))
            shown = [f"{100 * float(right.double().mean()):.2f}" for right in (before, after[-1])]
            lines.append([", ".join(map(str, classes)), str(len(before)), *shown])
        scores[SPECIALISTS] = {"inside/test/top1": float(torch.cat(after).double().mean())}
        return scores, lines

    def _present(
        self,
        scores: Mapping[int, Scores],
        inside: Sequence[Sequence[str]],
        missing: Sequence[str],
        runs: Sequence[Mapping[str, object]],
        paths: Mapping[str, str],
        source: Source,
    ) -> None:
        columns = ("test/top1", "inside/test/top1", "test/nll")
        first, known = next(iter(scores.values())), Shown([])
        values = {
            row: {c: {seed: of[row][c] for seed, of in scores.items()} for c in columns if c in first[row]}
            for row in (GENERALIST, AGAIN, SPECIALISTS, Q, OF_GENERALIST, OF_Q)
        }
        gains = {
            (row, base, column): compare(values[row][column], values[base][column], 10.0 ** -known[column].digits / 100)
            for row, base, column in COMPARED
        }
        kept = survivors(gains)
        notes = [
            f"{row} against {base}: {show_gain(gain, known[column])}{' *' if (row, base, column) in kept else ''} "
            f"{known[column].heading}"
            for (row, base, column), gain in gains.items()
        ]
        notes += [
            *legend(list(gains.values()), None),
            "inside: over the test examples of a cluster, among its classes alone; specialists each inside its own",
            f"rows: mean ± sample standard deviation (sd) over n seeds {list(scores)} of generalist, specialists and "
            "student together; numbers of the last epoch",
            *missing,
            *footnotes(runs),
        ]
        table = Table.of(self.title, columns, values, len(self.seeds), notes, known)
        header = ["seed", "cluster", "test examples", "generalist inside %", "its specialist inside %"]
        clusters = [pipes(header), "|--:|:--|--:|--:|--:|", *map(pipes, inside)]
        publish(table, paths, self.name, source, clusters)


def _special(classes: Sequence[int]) -> list[str]:
    return ["transfer=specialist", f"transfer.special_classes={list(classes)}"]


def _from(role: str, result: Result) -> str:
    return f"{role}.checkpoint='{result.folder.absolute()}'"


def _place(result: Result) -> str:
    return f"checkpoint: '{result.folder.absolute()}'"
