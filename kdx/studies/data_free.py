"""A study of students that learn from images synthesised from their teacher."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from kdx.config.compose import compose
from kdx.config.identity import fingerprint
from kdx.config.schema import RunConfig
from kdx.core.errors import UserError
from kdx.core.files import atomic_write, below
from kdx.core.notice import say
from kdx.core.ranges import PositiveInt
from kdx.core.seed import generator
from kdx.models.inversion import DeepInversion
from kdx.models.teachers.frozen import Frozen
from kdx.models.weights import load_weights, sha256
from kdx.runs.build import build_network, build_teacher
from kdx.runs.prepare import prepare
from kdx.runs.run import run, train_teacher
from kdx.runs.teacher import find_weights
from kdx.studies.grid import Grid
from kdx.studies.options import Options, located


@dataclass(frozen=True, kw_only=True)
class Inversion:
    """Images synthesised from the grid's teacher, for each seed.

    Attributes:
        recipe: The inversion method.
        count: Number of images; classes alternate.
        batch_size: Images that are optimised together.
        against: Overrides, after the grid's, of a run whose student the images compete with (adaptive inversion);
            "{seed}" stands for the seed; None for no competition.
        after: Name of an inversion whose images are included in the file; None for none.
    """

    recipe: DeepInversion
    count: PositiveInt
    batch_size: PositiveInt
    against: Sequence[str] | None
    after: str | None


@dataclass(frozen=True, kw_only=True)
class DataFree:
    """Synthesises images for each seed, then runs a grid whose rows can learn from them.

    The images of an inversion are in `{outputs}/studies/{grid.name}/{inversion}-{seed}.safetensors`. A file made by the
    same recipe from the same networks is used again.

    Attributes:
        inversions: By name; each may use the images of the ones before it.
        grid: Rows of runs.
    """

    accepts: ClassVar[frozenset[str]] = frozenset({"rows"})  # images are made for the seeds of the grid

    inversions: Mapping[str, Inversion]
    grid: Grid

    def __post_init__(self):
        for i, (name, inversion) in enumerate(self.inversions.items()):
            if inversion.after is not None and inversion.after not in list(self.inversions)[:i]:
                raise UserError(f"study.inversions.{name}.after: there is no inversion '{inversion.after}' before it")

    def execute(self, paths: Mapping[str, str], options: Options) -> list[str]:
        """Synthesise missing images, then execute the grid. See `Study.execute`."""
        if options.only is None:
            place = located(paths)
            folder = below(Path(paths["outputs"]) / "studies", self.grid.name, "study.name")
            for seed in self.grid.seeds:
                for name, inversion in self.inversions.items():
                    self._invert(name, inversion, place, options.overrides, folder, seed)
        return self.grid.execute(paths, options)

    def _invert(
        self,
        name: str,
        inversion: Inversion,
        place: Sequence[str],
        more: Sequence[str],
        folder: Path,
        seed: int,
    ) -> None:
        config = prepare(compose([*place, *self.grid.recipe((), seed), *more]))
        if config.teacher is None:
            raise UserError("images are synthesised from a teacher, and the method in study.grid.overrides has none")
        weights = find_weights(config, train_teacher)[""]
        rival = None
        if inversion.against is not None:
            rival = run(prepare(compose([*place, *self.grid.recipe(inversion.against, seed), *more]))).student
        before = None if inversion.after is None else folder / f"{inversion.after}-{seed}.safetensors"
        facts: dict[str, Any] = {
            "name": name,  # inversions start from different noise
            "recipe": asdict(inversion.recipe),
            "count": inversion.count,
            "batch_size": inversion.batch_size,
            "teacher": sha256(weights),
            "student": None if rival is None else sha256(rival),
            "after": None if before is None else sha256(before),
            "seed": seed,
            "torch": torch.__version__,
        }
        path, key = folder / f"{name}-{seed}.safetensors", fingerprint(facts)
        if _made(path) == key:
            return
        say(f"making {inversion.count} images: {path}")
        teacher = build_teacher(config, weights)
        student = None
        if rival is not None:
            net = build_network(config.student.net, 0)
            load_weights(net, rival)
            student = Frozen(net, None, None)
        images = self._images(inversion, config, teacher, student, generator(seed, "inversion", name))
        _save(path, images if before is None else torch.cat([_load(before), images]), key)

    def _images(
        self, inversion: Inversion, config: RunConfig, teacher: Frozen, student: Frozen | None, g: torch.Generator
    ) -> Tensor:
        """Bytes [N, H, W, C]."""
        dataset = config.dataset
        labels = torch.arange(inversion.count) % dataset["num_classes"]
        shape = tuple(dataset["input_shape"])
        with teacher.through_inputs(), nullcontext() if student is None else student.through_inputs():
            parts = [inversion.recipe(teacher, student, part, shape, g) for part in labels.split(inversion.batch_size)]
        mean, std = (torch.tensor(dataset[key]).view(-1, 1, 1) for key in ("mean", "std"))
        pixels = (torch.cat(parts) * std + mean).clamp(0, 1).mul(255).round().to(torch.uint8)
        return pixels.permute(0, 2, 3, 1).contiguous()


def _made(path: Path) -> str | None:
    """Key of the recipe and networks that made a file; None if there is no file."""
    from safetensors import safe_open

    if not path.is_file():
        return None
    with safe_open(path, "pt") as file:
        return (file.metadata() or {}).get("key")


def _load(path: Path) -> Tensor:
    from safetensors.torch import load_file

    return load_file(path)["images"]


def _save(path: Path, images: Tensor, key: str) -> None:
    from safetensors.torch import save  # its save_file hides the OSError

    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        file.write(save({"images": images}, {"key": key}))
