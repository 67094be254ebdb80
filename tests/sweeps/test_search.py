"""Search with Optuna: what it searches, that it goes on where it was, and that it gives up on runs."""

from pathlib import Path

import pytest
from door import SMALL, Said, command, folders

optuna = pytest.importorskip("optuna")

from kdx.sweeps.search import Search, read_space  # noqa: E402
from kdx.sweeps.trial import storage  # noqa: E402

RUN = [*SMALL, "logger=jsonl", "method=kd", "dataset.val_fraction=0.5", "hydra/sweeper=optuna"]
SPACE = ["method.temperature=interval(1,8)", "method.weights.kd=1,2"]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def search(capsys: pytest.CaptureFixture[str], *arguments: str) -> Said:
    return command(capsys, "train", "-m", *RUN, *SPACE, *arguments)


def trials(outputs: Path) -> list[tuple[str, dict[str, object], float | None]]:
    """State, parameters and value of the trials of the only search there, but for those that were cut off."""
    (journal,) = (outputs / "searches").glob("*.journal")
    study = optuna.load_study(study_name="search", storage=storage(journal))
    return [(t.state.name, t.params, t.value) for t in study.get_trials() if not t.user_attrs]


def test_intervals_are_numbers_and_lists_are_choices():
    fixed, space = read_space(
        ["method=kd", "a=interval(1,8)", "b=int(interval(1,8))", "c=tag(log,interval(0.1,8))", "d=x,y", "e=range(1,4)"]
    )
    assert fixed == ["method=kd"]
    assert space == {
        "a": optuna.distributions.FloatDistribution(1, 8),
        "b": optuna.distributions.IntDistribution(1, 8),
        "c": optuna.distributions.FloatDistribution(0.1, 8, log=True),
        "d": optuna.distributions.CategoricalDistribution(["x", "y"]),
        "e": optuna.distributions.CategoricalDistribution(["1", "2", "3"]),
    }


@pytest.mark.slow
def test_a_search_tells_the_best_of_what_its_runs_measured(capsys, tmp_path):
    said = search(capsys, "hydra.sweeper.trials=3", "hydra.sweeper.pruner=null")
    assert said.code == 0
    found = trials(tmp_path / "outputs")
    assert [state for state, _, _ in found] == ["COMPLETE"] * 3 and len(folders(tmp_path)) == 3
    best = max(value for _, _, value in found if value is not None)
    assert f"best val/top1: {best:.4f} with method.temperature=" in said.out
    # the same command again asks for nothing, and for more trials goes on with the search
    again = search(capsys, "hydra.sweeper.trials=3", "hydra.sweeper.pruner=null")
    assert again.out == said.out.splitlines(keepends=True)[-1]
    assert search(capsys, "hydra.sweeper.trials=4", "hydra.sweeper.pruner=null").code == 0
    more = trials(tmp_path / "outputs")
    assert more[:3] == found and len(more) == 4


@pytest.mark.slow
def test_a_search_that_was_cut_off_ends_as_one_that_was_not(capsys, tmp_path, monkeypatch):
    assert search(capsys, "hydra.sweeper.trials=5", "hydra.sweeper.sampler.n_startup_trials=2").code == 0
    undisturbed = trials(tmp_path / "outputs")
    cut = ["hydra.sweeper.trials=5", "hydra.sweeper.sampler.n_startup_trials=2", "paths.outputs=cut"]
    launched = 0

    def dying(self: Search, *, hydra_context, task_function, config):
        setup(self, hydra_context=hydra_context, task_function=task_function, config=config)
        launch = self.launcher.launch

        def once_more(jobs, initial_job_idx):
            nonlocal launched
            launched += 1
            if launched in (3, 5):
                raise SystemExit(137)
            return launch(jobs, initial_job_idx=initial_job_idx)

        self.launcher.launch = once_more

    setup = Search.setup
    monkeypatch.setattr(Search, "setup", dying)
    assert [search(capsys, *cut).code for _ in range(3)] == [137, 137, 0]
    assert trials(tmp_path / "cut") == undisturbed


def test_a_run_that_is_given_up_is_no_failure(capsys, tmp_path):
    pruner = "hydra.sweeper.pruner"
    never = [f"{pruner}._target_=optuna.pruners.ThresholdPruner", f"+{pruner}.lower=2.0", f"~{pruner}.n_startup_trials"]
    said = search(capsys, "hydra.sweeper.trials=2", *never)
    assert said.code == 0
    assert len([line for line in said.err if "pruned at step" in line]) == 2
    assert [state for state, _, _ in trials(tmp_path / "outputs")] == ["PRUNED"] * 2
    assert not any((run / name).exists() for run in folders(tmp_path) for name in ("DONE", "error.txt"))
    assert "no trial finished (2 pruned;" in said.out or "no trial finished (2 pruned)" in said.out


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (["hydra.sweeper.metric=test/top1"], 2, "a search never reads the test set; use val/top1"),
        (["dataset.val_fraction=0", "hydra.sweeper.trials=1"], 2, "dataset.val_fraction=0.2 cuts a validation split"),
        (["method.temperature=interval(-1,8)"], 2, "method.temperature"),
    ],
)
def test_what_a_search_refuses(capsys, arguments, code, line):
    said = search(capsys, *arguments)
    assert said.code == code
    assert any(line in told for told in said.err)
    assert not any("Traceback" in told for told in said.err)
