"""A study that clusters the classes that a trained network confuses."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import nn

from kdx.config.compose import compose
from kdx.config.schema import RunConfig
from kdx.core.errors import UserError
from kdx.core.files import below
from kdx.core.ranges import Count, PositiveInt
from kdx.data.dataset import LabelledImages
from kdx.metrics.accuracy import correct
from kdx.metrics.confusable import Covariance, confusable_classes
from kdx.models.weights import sha256
from kdx.runs.export import folder_of
from kdx.runs.fill import weights_file
from kdx.runs.prepare import network_name, prepare
from kdx.runs.provenance import commit
from kdx.runs.results import Result, finished, write_json
from kdx.runs.run import run
from kdx.studies.options import Options
from kdx.studies.trained import Batches, Evaluation
from kdx.tables.footnotes import commit as shown
from kdx.tables.manifest import Made
from kdx.tables.publish import Source, write_manifest


@dataclass(frozen=True)
class ConfusableSets:
    """Sets of confusable classes.

    Attributes:
        sets: Classes of each set, largest set first.
        seen: Number of examples.
        top1: Accuracy on them; not used for the sets.
    """

    sets: list[list[int]]
    seen: int
    top1: float


@dataclass(frozen=True, kw_only=True)
class Clustering:
    """Finds the classes that a network confuses.

    Attributes:
        split: Examples to predict: "test", "train" (`dataset.train_subset` of them), or "val".
        examples: Maximum number of examples, rounded up to whole batches; None for all.
        clusters: Number of sets.
        components: As in `confusable_classes`.
        seed: Seed of the starts of k-means.
        restarts: Number of starts; the best one counts.
        steps: Maximum number of iterations of a start.
    """

    split: Literal["test", "train", "val"]
    examples: PositiveInt | None
    clusters: PositiveInt
    components: PositiveInt | None
    seed: Count
    restarts: PositiveInt
    steps: PositiveInt

    @torch.no_grad()
    def find(self, network: nn.Module, batches: Batches) -> ConfusableSets:
        """The sets of a network in evaluation mode, from its predictions on the batches of `split`."""
        covariance, right, seen = Covariance(), 0, 0
        limit = None if self.examples is None else -(-self.examples // batches.batch_size)
        for batch in islice(batches, limit):
            logits = network(batch.inputs).logits.cpu()
            covariance.update(logits)
            right += int(correct(logits, batch.labels.cpu()).sum())
            seen += len(batch)
        found = confusable_classes(
            covariance.matrix(), self.clusters, self.components, self.seed, self.restarts, self.steps
        )
        return ConfusableSets(found, seen, right / seen)


@dataclass(frozen=True, kw_only=True)
class Clusters(Clustering):
    """Clusters the columns of the covariance of a network's predictions, and writes and prints the sets of classes.

    The network is the student of a run: the checkpoint in the overrides (`student.checkpoint`), or else the trained
    student. A missing run is trained.

    Attributes:
        name: Directory of its files.
        title: Heading.
        overrides: Overrides of the run.

    References:
        Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015, section 5.
        https://arxiv.org/abs/1503.02531
    """

    accepts: ClassVar[frozenset[str]] = frozenset()

    name: str
    title: str
    overrides: Sequence[str]

    def execute(self, paths: Mapping[str, str], options: Options) -> list[str]:
        """Find the sets, write `clusters.md` and `clusters.json`, and print them.

        Args:
            paths: The config's paths.
            options: Options of the command line; `overrides` follow the study's own.
        """
        place = options.place(paths)
        own = [*self.overrides, *options.overrides]
        config = prepare(compose([*place, *own]))
        weights, result = self._weights(config, options)
        if weights is None:
            return ["the network is not trained yet"]
        data = Evaluation(config)
        dataset = data.light.dataset
        if not isinstance(dataset, LabelledImages):
            raise UserError(f"study.overrides: clusters are sets of classes, and dataset={dataset.name} has none")
        found = self.find(data.student(config, weights), data.batches(self.split))
        names = dataset.class_names()
        facts: dict[str, Any] = {
            "network": network_name(config, "student"),
            "sha256": sha256(weights),
            "dataset": config.dataset["name"],
            "split": self.split,
            "examples": found.seen,
            "top1": found.top1,
            "clusters": {
                "number": self.clusters,
                "components": self.components,
                "seed": self.seed,
                "restarts": self.restarts,
                "steps": self.steps,
            },
            "code": commit(),
        }
        folder = below(Path(paths["outputs"]) / "studies", self.name, "study.name")
        text = self._write(folder, found.sets, names, facts)
        if result is not None:  # given weights have no run to repeat
            label = network_name(config, "student")
            source = Source(type(self).__name__, "last", [Made(label, label, own, result)])
            write_manifest(folder, "clusters", paths, self.name, source, [], {"md": text})
        return []

    def _weights(self, config: RunConfig, options: Options) -> tuple[Path | None, Result | None]:
        """The network's weights, and the run that trained them; None for each that is not there."""
        given = config.student.checkpoint
        if given is not None:
            return weights_file(given, "student.checkpoint"), None
        result = finished(folder_of(config)) if options.only else run(config)
        return (None, None) if result is None else (result.student, result)

    def _write(self, folder: Path, found: list[list[int]], names: list[str], facts: Mapping[str, Any]) -> str:
        lines = [", ".join(names[label] for label in classes) for classes in found]
        points = "the columns of their covariance"
        if self.components is not None:
            points = f"directions in the {self.components} leading components of their correlation"
        notes = [
            f"{facts['network']} (sha256 {facts['sha256'][:12]}), predictions on {facts['examples']:,} examples of "
            f"{facts['dataset']}'s {self.split} set, of which {100 * facts['top1']:.2f} % are right; no label was used",
            f"k-means on {points}: {self.clusters} clusters, seed {self.seed}, best of "
            f"{self.restarts} starts; {shown(facts['code'])}",
        ]
        folder.mkdir(parents=True, exist_ok=True)
        rows = [
            f"| {i} | {len(classes)} | {line} |" for i, (classes, line) in enumerate(zip(found, lines, strict=True), 1)
        ]
        text = [
            f"# {self.title}",
            "",
            "| set | classes | |",
            "|--:|--:|:--|",
            *rows,
            "",
            *(f"- {n}" for n in notes),
            "",
        ]
        (folder / "clusters.md").write_text("\n".join(text))
        write_json(
            folder / "clusters.json", {**facts, "classes": found, "names": [[names[c] for c in s] for s in found]}
        )
        print("\n".join([self.title, *(f"{i:>4}  {line}" for i, line in enumerate(lines, 1)), "", *notes]))
        print(f"\n{folder}/clusters.md, clusters.json")
        return "\n".join(text)
