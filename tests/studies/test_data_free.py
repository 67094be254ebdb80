"""The study that makes images of its teachers and learns from them."""

from pathlib import Path

import pytest
from conftest import CLASSES, STUDENT, TINY
from safetensors.torch import load_file
from study_options import study_options

from kdx.core.errors import UserError
from kdx.models.inversion import DeepInversion
from kdx.studies.data_free import DataFree, Inversion
from kdx.studies.grid import Grid

RECIPE = DeepInversion(steps=2, lr=0.1, statistics=1.0, smooth=0.0, small=0.0, compete=1.0, temperature=3.0, jitter=1)


def study(folder: Path) -> DataFree:
    own = ["transfer=synthetic", f"transfer.unlabelled.path={folder}/studies/free/di-{{seed}}.safetensors"]
    di = Inversion(recipe=RECIPE, count=7, batch_size=4, against=None, after=None)
    grid = Grid(
        name="free",
        title="Free",
        overrides=[*CLASSES, *TINY, *STUDENT, "trainer.duration.steps=2", "evals.test.every=null"],
        seeds=[0],
        seed_overrides=["seed={seed}"],
        rows={"DI": own, "ADI": [own[0], own[1].replace("di-", "adi-")]},
        baseline=None,
        cost_row=None,
        teacher_row=False,
        columns=["test/top1"],
        protocol="last",
    )
    adi = Inversion(recipe=RECIPE, count=3, batch_size=4, against=own, after="di")
    return DataFree(inversions={"di": di, "adi": adi}, grid=grid)


def images(folder: Path) -> dict[str, object]:
    return {p.stem: load_file(p)["images"] for p in sorted((folder / "studies" / "free").glob("*.safetensors"))}


@pytest.mark.slow
def test_images_are_made_once_and_learned_from(tmp_path: Path, capsys):
    paths = {key: str(tmp_path / key) for key in ("runs", "teachers", "memos")} | {"outputs": str(tmp_path)}
    assert study(tmp_path).execute(paths, study_options()) == []
    made = images(tmp_path)
    assert {name: tuple(x.shape) for name, x in made.items()} == {
        "di-0": (7, 8, 8, 3),
        "adi-0": (10, 8, 8, 3),
    }
    assert (made["adi-0"][:7] == made["di-0"]).all()
    assert capsys.readouterr().out.count("making") == 2
    learned = {r.name.split("-")[-1]: r for r in (tmp_path / "runs").iterdir()}
    assert len(learned) == 2
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "studies" / "free").glob("*.safetensors")}
    assert study(tmp_path).execute(paths, study_options()) == []
    assert "making" not in capsys.readouterr().out and before == {p: p.stat().st_mtime_ns for p in before}


def test_an_inversion_comes_after_one_that_is_there():
    whole = study(Path("/nowhere"))
    with pytest.raises(UserError, match="there is no inversion 'di' before it"):
        DataFree(inversions={"adi": whole.inversions["adi"]}, grid=whole.grid)
