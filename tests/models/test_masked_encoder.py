"""The head for hidden tokens against the library's own, and students that start from chosen layers."""

from pathlib import Path
from typing import Any

import pytest
import torch
from small_tokens import tokenizer_folder
from torch import Tensor, nn
from transformers import BertConfig, BertForMaskedLM, DistilBertConfig, DistilBertForMaskedLM

from kdx.core.batch import Batch
from kdx.core.schedule import Progress
from kdx.core.weigh import weigh
from kdx.data.loaders import make_loaders
from kdx.data.text.masking import Masking
from kdx.data.text.phrases import MaskedPhrases
from kdx.data.views.augment import PLAIN
from kdx.losses.features.distilbert import HiddenCosine
from kdx.losses.logits.cross_entropy import CrossEntropy
from kdx.losses.logits.kd import KD
from kdx.losses.wrappers.over_rows import OverRows
from kdx.methods.distill import Distill
from kdx.models.teachers.frozen import Frozen
from kdx.models.text.masked import MaskedEncoder, masked_model

VOCABULARY, WIDTH = 113, 16
BERT = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 32,
}
DISTIL = {"vocab_size": VOCABULARY, "dim": WIDTH, "n_layers": 2, "n_heads": 2, "hidden_dim": 32, "n_positions": 32}


def phrases() -> MaskedPhrases:
    return MaskedPhrases(
        name="masked_phrases",
        train_size=400,
        test_size=40,
        seed=0,
        fraction=1.0,
        fraction_seed=0,
        val_fraction=0.0,
        val_seed=0,
        train_subset=20,
        tokenizer=tokenizer_folder(),
        max_length=24,
        index=f"{tokenizer_folder()}/ids",
        masking=Masking(share=0.15, masked=0.8, random=0.1, whole_words=True, smoothing=0.7),
    )


def built(init: Path | None, layers: list[int] | None = None, pretrained: bool = True, **options: int) -> MaskedEncoder:
    sizes: Any = ("copy", 0.0, 0.0, tokenizer_folder())
    return masked_model(None if init is None else str(init), pretrained, "bert", options, layers, *sizes)


def inputs() -> dict[str, Tensor]:
    mask = torch.tensor([[1] * 7, [1, 1, 1, 1, 0, 0, 0]])
    return {"input_ids": torch.randint(5, VOCABULARY, (2, 7)) * mask, "attention_mask": mask}


@pytest.mark.parametrize(
    "net, config", [(BertForMaskedLM, BertConfig(**BERT)), (DistilBertForMaskedLM, DistilBertConfig(**DISTIL))]
)
def test_logits_are_the_librarys_own(net: Any, config: Any, tmp_path: Path):
    own = net(config).eval()
    for name, p in own.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(p)
    own.save_pretrained(tmp_path)
    given, mine = inputs(), built(tmp_path).eval()
    expected = own(**given).logits
    mask = given["attention_mask"] != 0
    torch.testing.assert_close(mine(given).logits[mask], expected[mask], rtol=1e-5, atol=1e-5)
    assert mine(given).logits.shape == (2, 7, VOCABULARY)


def test_a_head_is_random_where_the_weights_have_none_of_its_size(tmp_path: Path):
    own = BertForMaskedLM(BertConfig(**BERT))
    own.bert.save_pretrained(tmp_path)
    headless = built(tmp_path)
    assert torch.equal(headless.words, own.bert.embeddings.word_embeddings.weight)
    assert headless.bias.count_nonzero() == 0 and headless.dense.weight.std() > 0
    own.save_pretrained(tmp_path)
    assert torch.equal(built(tmp_path).dense.weight, own.cls.predictions.transform.dense.weight)
    assert not torch.equal(built(tmp_path, pretrained=False).dense.weight, own.cls.predictions.transform.dense.weight)


def test_the_output_layer_is_the_table_of_words_and_counted_once():
    net = built(None, **{k: v for k, v in BERT.items() if k != "vocab_size"})
    assert sum(p.shape == (VOCABULARY, WIDTH) for p in net.parameters()) == 1
    assert not any(name.startswith("text.fc") for name, _ in net.named_parameters())
    net(inputs()).logits[0, 0, 7].backward()
    assert net.words.grad is not None and net.words.grad[7].any()


def method(student: MaskedEncoder, teacher: MaskedEncoder, spec: Any) -> Distill:
    terms = {
        "mlm": OverRows(CrossEntropy(0.0), "all", None),
        "kd": OverRows(KD(2.0, "batchmean"), "all", 64),
        "cosine": HiddenCosine(None, None, "all"),
    }
    return Distill(student, Frozen(teacher, None, None), spec, terms, {"mlm": 2.0, "kd": 5.0, "cosine": 1.0}, 2.0)


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Batch], Any]:
    """A teacher of four layers that learned the phrases for 100 steps; batches of another epoch, and their spec."""
    torch.set_num_threads(1)
    loaders = make_loaders(phrases().splits(), PLAIN, 32, 32, 0, None, False, False)
    torch.manual_seed(0)
    net = BertForMaskedLM(BertConfig(**BERT, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0))
    optimizer = torch.optim.AdamW(net.parameters(), 4e-3)
    for batch in (batch for epoch in range(8) for batch in loaders.train.epoch(epoch)):
        given: Any = batch.inputs
        loss = net(**given, labels=batch.labels.masked_fill(batch.labels < 0, -100)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    folder = tmp_path_factory.mktemp("teacher")
    net.save_pretrained(folder)
    return folder, list(loaders.train.epoch(99)), loaders.spec


def test_a_student_of_chosen_layers_starts_below_a_random_one(taught):
    """Each term of the triple loss, at step 0; and the layers are those of the map."""
    folder, batches, spec = taught
    teacher = built(folder)
    chosen = built(folder, [2, 4])
    state, whole = chosen.text.encoder.state_dict(), teacher.text.encoder.state_dict()
    for mine, theirs in ((0, 1), (1, 3)):
        name = "encoder.layer.{}.attention.self.query.weight"
        assert torch.equal(state[name.format(mine)], whole[name.format(theirs)])
    found = []
    for seed in range(3):
        torch.manual_seed(seed)
        random = built(folder, [], pretrained=False, num_hidden_layers=2)
        for student in (chosen, random):
            step = method(student, built(folder), spec).eval()(batches[0], Progress(0, 10, 10))
            found.append({name: term.item() for name, term in step.terms.items()})
    for start, other in zip(found[::2], found[1::2], strict=True):
        assert start["mlm"] < other["mlm"] and start["kd"] < other["kd"] and start["cosine"] < other["cosine"]


def test_identical_networks_have_no_divergence_and_no_angle(taught):
    folder, batches, spec = taught
    step = method(built(folder), built(folder), spec).eval()(batches[0], Progress(0, 10, 10))
    assert step.terms["kd"].abs() < 1e-6 and step.terms["cosine"].abs() < 1e-6 and step.terms["mlm"] > 0.1


def test_the_triple_loss_descends_in_each_of_its_terms(taught):
    folder, batches, spec = taught
    given = method(built(folder, [], pretrained=False, num_hidden_layers=2), built(folder), spec)
    optimizer = torch.optim.AdamW([p for p in given.parameters() if p.requires_grad], 5e-3)

    def measured() -> dict[str, float]:
        with torch.no_grad():
            return {name: t.item() for name, t in given.eval()(batches[-2], Progress(0, 10, 10)).terms.items()}

    before = measured()
    for step in range(40):
        found = given.train()(batches[step % 8], Progress(step, 40, 1))
        optimizer.zero_grad()
        weigh(found.terms, given.weights, Progress(step, 40, 1)).backward()
        optimizer.step()
    after = measured()  # on a batch that it did not see
    shares = {name: after[name] / before[name] for name in before}
    assert max(shares.values()) < 0.9, shares
