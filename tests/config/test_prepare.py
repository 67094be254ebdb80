"""From a composed config to one that says everything about its run."""

import hashlib

import pytest
from door import SMALL

from kdx.config.compose import ConfigError, compose
from kdx.config.identity import identity
from kdx.config.schema import RunConfig
from kdx.runs.prepare import REGIME, examine, prepare


def prepared(*overrides: str) -> RunConfig:
    return prepare(compose([*SMALL, *overrides]))


@pytest.fixture(scope="module")
def config() -> RunConfig:
    return prepared()


@pytest.mark.parametrize("group", ["method", "student"])
def test_a_part_that_is_deleted_is_missed(group: str):
    with pytest.raises(ConfigError) as found:
        examine(compose([f"~{group}"]))
    assert f"missing key '{group}'" in found.value.problems


def test_a_method_without_teacher_drops_it_with_what_is_measured_against_it():
    config = prepared("method=supervised")
    assert config.teacher is None
    assert set(config.evals) == {"test", "val"}
    assert "fidelity" in prepared().evals


def test_a_teacher_that_is_not_used_is_no_part_of_the_identity():
    assert identity(prepared("method=supervised")) == identity(
        prepared("method=supervised", "teacher.net.hidden=[9,9]", "teacher.checkpoint=nowhere", "teacher.seed=4")
    )


def test_what_only_composition_needed_is_gone(config):
    assert not config.plain().keys() & {"experiment", "debug", "recipe", "hydra"}


def test_a_teacher_sees_the_same_data_whole():
    cut = ["dataset.val_fraction=0.2", "dataset.val_seed=4", "dataset.noise=0.5"]
    mine = prepared("dataset.fraction=0.5", "dataset.fraction_seed=3", *cut)
    theirs = mine.teacher.training.dataset
    differ = {key for key in theirs if theirs[key] != mine.dataset[key]}
    assert differ <= set(REGIME)
    assert theirs["fraction"] == 1
    # what a student is chosen on is new to its teacher, too
    assert (theirs["val_fraction"], theirs["val_seed"]) == (0.2, 4)


def test_one_teacher_serves_every_regime_method_and_seed_of_a_sweep(config):
    same = identity(config.teacher.training)
    for override in ("dataset.fraction=0.5", "method=dkd", "seed=5", "student.net.hidden=[3,3]", "optimizer.lr=0.5"):
        assert identity(prepared(override).teacher.training) == same, override
    for override in ("teacher.seed=1", "teacher.net.hidden=[9,9]", "dataset.noise=0.1", "debug=overfit"):
        assert identity(prepared(override).teacher.training) != same, override


def test_a_teacher_is_the_network_of_the_run_trained_from_labels(config):
    training = config.teacher.training
    assert training.student.net == config.teacher.net
    assert training.method["_target_"] == "kdx.methods.supervised.Supervised"
    assert training.teacher is None
    assert training.seed == config.teacher.seed
    assert training.paths == config.paths
    assert training.logger == config.logger


def test_a_choice_of_trainer_is_shared_and_its_values_are_not():
    whole = [o for o in SMALL if not o.startswith(("debug", "trainer"))]
    config = prepare(
        compose([*whole, "trainer=quick", "trainer.batch_size=7", "trainer.threads=3", "optimizer.lr=0.3"])
    )
    training = config.teacher.training
    assert training.trainer["duration"]["steps"] == 2400
    assert training.trainer["batch_size"] == 64
    assert training.trainer["threads"] == 3  # of the machine
    assert training.optimizer["lr"] == 0.05


def test_a_teachers_own_recipe_changes_its_training_alone():
    config = prepared("teacher.recipe=['optimizer.lr=0.2','augmentation=none']")
    training = config.teacher.training
    assert training.optimizer["lr"] == 0.2
    assert training.choices["augmentation"] == "none"
    assert config.optimizer["lr"] == 0.05


def test_the_data_sets_own_recipe_for_its_teacher_holds():
    training = prepare(compose(["dataset=digits"])).teacher.training
    assert training.choices["augmentation"] == "shift"
    assert training.optimizer["lr"] == 0.001


@pytest.mark.parametrize(
    ("recipe", "line"),
    [
        ("optimizer.lrr=1", "teacher.recipe: unknown key 'optimizer.lrr'; did you mean 'optimizer.lr'?"),
        ("optimizer.lr=-1", "teacher.recipe: optimizer.lr: must be greater than 0, found -1"),
        ("augmentation=nope", "teacher.recipe: unknown augmentation 'nope'; did you mean 'none'?"),
        ("trainer.duration.epochs=1", "teacher.recipe: trainer.duration: exactly one of epochs, steps, examples"),
    ],
)
def test_mistakes_in_a_teachers_recipe_carry_its_name(recipe, line):
    with pytest.raises(ConfigError) as error:
        prepared(f"teacher.recipe=['{recipe}']")
    (problem,) = error.value.problems
    assert problem.startswith(line)


def test_a_given_checkpoint_counts_by_its_content_and_not_by_its_place(tmp_path):
    paths = [tmp_path / name for name in ("a.safetensors", "b.safetensors", "c.safetensors")]
    for path, content in zip(paths, (b"one", b"one", b"two"), strict=True):
        path.write_bytes(content)
    a, b, c = (prepared(f"teacher.checkpoint={path}") for path in paths)
    assert a.teacher.sha256 == hashlib.sha256(b"one").hexdigest()
    assert a.teacher.training is None
    assert identity(a) == identity(b) != identity(c)


def test_a_given_teacher_has_no_seed(tmp_path):
    given = tmp_path / "a.safetensors"
    given.write_bytes(b"one")
    at = f"teacher.checkpoint={given}"
    assert identity(prepared(at, "teacher.seed=3")) == identity(prepared(at))
    # initial and trained weights have one
    for other in ("teacher.checkpoint=null", "teacher.checkpoint=auto"):
        assert identity(prepared(other, "teacher.seed=3")) != identity(prepared(other))
    members = [f"teacher.members={{a: {{seed: {s}, checkpoint: '{given}'}}, b: {{seed: 2}}}}" for s in (0, 5)]
    assert len({identity(prepared(m)) for m in members}) == 1


def test_the_directory_of_a_run_stands_for_its_student(tmp_path):
    (tmp_path / "student.safetensors").write_bytes(b"exported")
    config = prepared(f"teacher.checkpoint={tmp_path}", f"student.checkpoint={tmp_path}")
    digest = hashlib.sha256(b"exported").hexdigest()
    assert (config.teacher.sha256, config.student.sha256) == (digest, digest)


def test_preparing_changes_nothing_that_was_given(tmp_path):
    import copy

    (tmp_path / "student.safetensors").write_bytes(b"exported")
    composed = compose([*SMALL, f"student.checkpoint={tmp_path}"])
    before = copy.deepcopy(composed.config)
    assert prepare(composed) == prepare(composed)
    assert composed.config == before


def test_a_rehearsal_leaves_the_random_streams_alone():
    import torch

    from kdx.runs.checks import dry_run as rehearse

    rehearse._passed.clear()
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    prepared()
    assert torch.equal(torch.rand(3), expected)


def test_a_rehearsal_loads_no_pretrained_weights():
    for net, key, value in (("timm", "pretrained", "true"), ("torchvision", "weights", "DEFAULT")):
        wanted = [f"student={net}", "student.net.name=resnet18", f"student.net.{key}={value}"]
        shape = ["dataset.input_shape=[3,32,32]", "dataset.mean=[0.5,0.5,0.5]", "dataset.std=[0.2,0.2,0.2]"]
        small = [o for o in SMALL if not o.startswith(("student", "dataset.input", "dataset.mean", "dataset.std"))]
        config = prepare(compose([*small, *shape, *wanted]))
        assert config.student.net[key] in (True, "DEFAULT")  # the run itself does


def test_a_shipped_teacher_gets_inputs_as_it_was_trained_on():
    place = ["dataset.input_shape=[3,32,32]", "dataset.mean=[0.485,0.456,0.406]", "dataset.std=[0.229,0.224,0.225]"]
    small = [o for o in SMALL if not o.startswith(("teacher", "dataset.input", "dataset.mean", "dataset.std"))]
    own = ["teacher=timm", "teacher.net.name=vit_tiny_patch16_224", "+teacher.net.options.img_size=32"]
    wanted = [*small, *place, *own, "teacher.checkpoint=null", "teacher.net.pretrained=true"]
    with pytest.raises(ConfigError, match=r"set teacher.mean=\[0.5,0.5,0.5\] teacher.std=\[0.5,0.5,0.5\]"):
        prepare(compose(wanted))
    prepare(compose([*wanted, "teacher.mean=[0.5,0.5,0.5]", "teacher.std=[0.5,0.5,0.5]"]))
    prepare(compose([o.replace("vit_tiny_patch16_224", "resnet18") for o in wanted if "img_size" not in o]))


@pytest.mark.parametrize("command", [["optimizer.lr=0"], ["method.weights.kd=x", "seed=-1"]])
def test_examining_tells_what_preparing_tells(command):
    told = []
    for check in (examine, prepare):
        with pytest.raises(ConfigError) as error:
            check(compose([*SMALL, *command]))
        told.append(error.value.problems)
    assert told[0] == told[1]


def test_a_held_out_part_is_new_to_the_teacher():
    mine = prepared(
        "transfer=heldout", "transfer.held_out=0.3", "transfer.held_out_seed=7", "transfer.omit_classes=[1]"
    )
    theirs = mine.teacher.training.transfer
    assert (mine.transfer["part"], theirs["part"]) == ("held_out", "rest")
    assert (theirs["held_out"], theirs["held_out_seed"], theirs["omit_classes"]) == (0.3, 7, [])
    plain = prepared("transfer.omit_classes=[1]").teacher.training
    assert identity(plain) == identity(prepared().teacher.training) != identity(mine.teacher.training)


def test_images_count_by_their_content_and_not_by_their_place(tmp_path):
    def images(name: str, text: str) -> str:
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.png").write_text(text)
        return identity(prepared("transfer=synthetic", f"transfer.unlabelled.path='{tmp_path / name}'"))

    assert images("a", "x") == images("b", "x") != images("c", "y")
    with pytest.raises(ConfigError, match="no such file or directory"):
        prepared("transfer=synthetic", f"transfer.unlabelled.path='{tmp_path / 'd'}'")


@pytest.mark.parametrize("method", ["sobolev", "jacobian", "at_grad"])
def test_what_the_compiler_cannot_is_reported_before_a_teacher_trains(method: str):
    prepared(f"method={method}")
    with pytest.raises(ConfigError, match=f"method={method} needs second derivatives or forward-mode"):
        prepared(f"method={method}", "trainer.compile=true")
    prepared("method=kd", "trainer.compile=true")


@pytest.mark.parametrize("classes", ["[4]", "[-1]", "[0,1,2,3]"])
def test_biases_are_of_classes_that_there_are(classes: str):
    with pytest.raises(
        ConfigError, match="evals.bias.classes: a bias is moved for some of the classes 0 to 3"
    ) as found:
        prepared("evals=bias", f"evals.bias.classes={classes}")
    assert len(found.value.problems) == 1
    prepared("evals=bias", "evals.bias.classes=[0,3]")


def test_biases_are_of_the_classes_that_a_specialist_tells_apart():
    special = ("method=supervised", "transfer=specialist", "transfer.special_classes=[0]", "evals=bias")
    prepared(*special, "evals.bias.classes=[1]")
    with pytest.raises(ConfigError, match="some of the classes 0 to 1, but not all; found 2"):
        prepared(*special, "evals.bias.classes=[2]")


@pytest.mark.parametrize(
    ("scene", "views"),
    [(("method=mlkd",), 2), (("method=kdcl", "method.inputs=own"), 2), (("method=dml", "method.peers=[same,same]"), 1)],
)
def test_views_that_a_method_misses_are_reported_before_its_teacher_trains(scene: tuple[str, ...], views: int):
    if views == 1:
        prepared(*scene)
        scene, views = (*scene, "method.inputs=own"), 3
    with pytest.raises(ConfigError, match=f"needs {views} views of each example, and the augmentation makes 1"):
        prepared(*scene)
    if views == 2:
        prepared(*scene, "augmentation=two_shifts")


def test_what_a_transfer_set_cannot_be_is_reported_before_anything_loads():
    with pytest.raises(ConfigError) as found:
        prepared("transfer=unlabelled", "transfer.omit_classes=[99]")
    rest, classes = found.value.problems
    assert "dataset.fraction=1 leaves none" in rest and "omit_classes has 99" in classes
    with pytest.raises(ConfigError, match="transfer.omit_classes leaves no class to learn from"):
        prepared("transfer.omit_classes=[0,1,2,3]")
    with pytest.raises(ConfigError, match="memo=true stores outputs of the training set"):
        prepared("transfer=noise", "teacher.memo=true", "trainer.batch_size=16")
    with pytest.raises(ConfigError, match="this transfer set has none, so there is nothing to learn from"):
        prepared("transfer=noise", "method=supervised")
    with pytest.raises(ConfigError, match="DKD reads the label"):
        prepared("transfer=noise", "method=dkd")


def test_one_process_has_nobody_to_divide_a_teacher_with():
    with pytest.raises(ConfigError, match="teacher.shard=true divides a teacher among processes, and there is one"):
        examine(compose(["dataset=synthetic", "method=kd", "teacher.shard=true"]))
