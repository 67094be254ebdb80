"""A run that an earlier version left unfinished is named, since it is not resumed."""

from pathlib import Path

import pytest

from kdx.runs.checks.remarks import abandoned

OLD = "digits-kd-mlp_30-from-mlp_400-seed0-0000000000000000"


def left(folder: Path, config: str, *files: str) -> None:
    folder.mkdir()
    (folder / "config.yaml").write_text(config)
    for name in files:
        (folder / name).touch()


@pytest.mark.parametrize(
    "old, config, files, found",
    [
        (OLD, "seed: 0\nfresh: false\n", (), True),
        (OLD, "seed: 0\nrole: student\n", ("DONE",), False),  # finished by this version
        (OLD, "seed: 0\nrole: student\n", (), False),  # of this version
        (OLD.replace("seed0", "seed1"), "seed: 0\n", (), False),  # another run
    ],
)
def test_an_unfinished_run_of_the_first_version_is_named(tmp_path: Path, old: str, config: str, files, found: bool):
    left(tmp_path / old, config, *files)
    new = tmp_path / f"{OLD.rpartition('-')[0]}-1111111111111111"
    assert [old in line for line in abandoned(new)] == [True] * found


def test_a_run_that_resumes_says_nothing(tmp_path: Path):
    left(tmp_path / OLD, "seed: 0\n")
    new = tmp_path / f"{OLD.rpartition('-')[0]}-1111111111111111"
    left(new, "seed: 0\nrole: student\n")
    assert list(abandoned(new)) == []


def test_finished_runs_of_the_first_version_are_named_in_one_line(tmp_path: Path):
    for number in range(3):
        left(tmp_path / f"{OLD[:-1]}{number}", "seed: 0\n", "DONE")
    (line,) = abandoned(tmp_path / f"{OLD.rpartition('-')[0]}-1111111111111111")
    assert f"{tmp_path / OLD} and 2 more finished under version 0.1" in line
