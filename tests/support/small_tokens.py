"""A tokenizer of the words of the made-up phrases, for tests: 100 tokens instead of 30,000."""

import json
import tempfile
from functools import cache
from pathlib import Path

from kdx.data.text import phrases

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
PIECES = ("ing", "ed", "s")
"""Ends of words that are tokens of their own, "##ing" and so on."""


def vocabulary() -> list[str]:
    """Tokens by id: special ones, the words of the phrases without such ends, and the ends."""
    parts = (phrases.THINGS, phrases.VERBS, phrases.DEGREES, phrases.GOOD, phrases.BAD, phrases.NOT, phrases.TAILS)
    texts = [text for part in (*parts, *phrases.TOPICS, ("but and .",)) for text in part]
    words = {_stem(word) for text in texts for word in text.split()}
    return [*SPECIAL, *sorted(words), *(f"##{piece}" for piece in PIECES)]


def _stem(word: str) -> str:
    end = next((piece for piece in PIECES if word.endswith(piece) and len(word) > len(piece) + 2), "")
    return word.removesuffix(end)


@cache
def tokenizer_folder() -> str:
    """A folder with a `tokenizer.json` of WordPiece, the same for all tests of a process."""
    ids = {token: i for i, token in enumerate(vocabulary())}
    special = [{"SpecialToken": {"id": token, "type_id": 0}} for token in ("[CLS]", "[SEP]")]
    facts = {
        "version": "1.0",
        "added_tokens": [{"id": ids[token], "content": token, "special": True, **PLAIN} for token in SPECIAL],
        "normalizer": {"type": "Lowercase"},
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [special[0], {"Sequence": {"id": "A", "type_id": 0}}, special[1]],
            "pair": [
                special[0],
                {"Sequence": {"id": "A", "type_id": 0}},
                special[1],
                {"Sequence": {"id": "B", "type_id": 1}},
            ],
            "special_tokens": {t: {"id": t, "ids": [ids[t]], "tokens": [t]} for t in ("[CLS]", "[SEP]")},
        },
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": ids,
        },
    }
    folder = Path(tempfile.mkdtemp(prefix="kdx_tokens"))
    (folder / "tokenizer.json").write_text(json.dumps(facts))
    return str(folder)


PLAIN = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
