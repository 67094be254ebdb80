"""The place of a data set is no part of a run, however it is written."""

import pytest

from kdx.config.compose import ConfigError, compose
from kdx.config.identity import identity
from kdx.config.schema import RunConfig
from kdx.runs.prepare import examine

BASE = ("dataset=imagefolder", "dataset.num_classes=3", "student=resnet8", "method=kd", "teacher=resnet8")


def config(root: str, folder: str, *overrides: str) -> RunConfig:
    return examine(compose([*BASE, f"dataset.root={root}", f"dataset.folder={folder}", *overrides]))


@pytest.mark.parametrize("folder", ["plain", "./plain", "plain/", "other/../plain", "/data/plain", "/data//plain/"])
def test_a_folder_has_one_name(folder: str):
    same, found = config("/data", "plain"), config("/data", folder)
    assert (found.dataset["folder"], found.dataset["name"]) == ("plain", "plain")
    assert identity(found) == identity(same)
    assert identity(found.teacher.training) == identity(same.teacher.training)


def test_another_folder_is_another_run_and_another_root_is_not():
    assert identity(config("/data", "plain")) != identity(config("/data", "a/plain"))
    assert identity(config("/data", "plain")) == identity(config("/elsewhere/data", "plain"))


def test_a_name_of_ones_own_stays():
    assert config("/data", "./plain", "dataset.name=mine").dataset["name"] == "mine"


@pytest.mark.parametrize("folder", ["/images/plain", "../images/plain", "."])
def test_a_folder_outside_the_root_is_refused_with_what_would_be_right(folder: str):
    said = r"is no folder inside dataset\.root; write dataset\.root=/\S* dataset\.folder=\w"
    with pytest.raises(ConfigError, match=said):
        config("/data", folder)


def test_unlabelled_images_of_a_folder_have_one_name_too():
    def other(folder: str) -> RunConfig:
        images = "transfer.unlabelled.dataset"
        facts = [f"{images}.num_classes=2", f"{images}.root=/data", f"{images}.folder={folder}"]
        return config("/data", "plain", "transfer=other", f"dataset@{images}=imagefolder", *facts)

    assert identity(other("far")) == identity(other("./far/")) == identity(other("/data/far"))
    assert identity(other("far")) != identity(other("near"))


def test_no_absolute_path_is_hashed():
    from kdx.config.identity import counts, leaves

    found = config("/data", "/data/plain", "paths.outputs=/somewhere", "teacher.checkpoint=auto")
    hashed = {path: value for path, value in leaves(found).items() if counts(path)}
    assert [p for p, v in hashed.items() if isinstance(v, str) and v.startswith("/")] == []
