"""A tokenizer of whole words, and data sets of text over it, for tests."""

from pathlib import Path

from kdx.data.text.phrases import BAD, DEGREES, GOOD, NOT, TAILS, THINGS, TOPICS, VERBS, Phrases

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = [*"abcdefgh", "the", "film", "story", "was", "is", "not", "but", "boring", "funny", "dull", "clever", ".", ","]


def write_tokenizer(folder: Path, words: list[str] = WORDS) -> Path:
    """A folder with the `tokenizer.json` of a vocabulary of whole words."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    vocabulary = {word: i for i, word in enumerate([*SPECIAL, *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])]
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", ends)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def grammar() -> list[str]:
    """All words of the made-up texts."""
    texts = [
        *THINGS,
        *VERBS,
        *DEGREES,
        *GOOD,
        *BAD,
        *NOT,
        *TAILS,
        "but and .",
        *(text for pair in TOPICS for text in pair),
    ]
    return sorted({word for text in texts for word in text.split()})


def phrases(folder: Path, **changes) -> Phrases:
    """Made-up opinions, tokenised in whole words of the grammar's common ones."""
    facts = dict(
        name="phrases", num_classes=2, tokenizer=str(folder / "words"), max_length=24, index=str(folder / "index")
    )
    regime = dict(fraction=1.0, fraction_seed=0, val_fraction=0.0, val_seed=0, train_subset=20)
    if not (folder / "words").exists():
        write_tokenizer(folder / "words")
    return Phrases(**{**facts, **regime, "train_size": 103, "test_size": 41, "seed": 0, **changes})
