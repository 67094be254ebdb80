"""Texts as token ids, computed once: the result is cached under a hash of texts and tokenizer."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdx.core.distributed import is_leader
from kdx.core.errors import reason
from kdx.core.files import atomic_write
from kdx.core.notice import notice, say
from kdx.core.pretrained import TokenizerFile, tokenizer_file
from kdx.data.sets import DataError

VERSION = "1"  # of the layout of cached files
CHUNK = 4096  # texts tokenised at a time


@dataclass(frozen=True)
class Encoded:
    """Token ids of texts.

    Attributes:
        ids: Ids of all texts, one after the other, int32.
        lengths: Number of ids of each text, int64 [N].
        types: For pairs of texts, the text that each id belongs to, uint8; else None.
        cut: Number of texts that were longer and lost their end.
    """

    ids: Tensor
    lengths: Tensor
    types: Tensor | None
    cut: int

    @property
    def starts(self) -> Tensor:
        """Position of each text's first id, int64 [N]."""
        return self.lengths.cumsum(0) - self.lengths


def encode(
    texts: Sequence[str],
    second: Sequence[str] | None,
    tokenizer: TokenizerFile,
    length: int,
    cache: Path | None,
    name: str,
) -> Encoded:
    """Token ids of texts, with the special tokens of the tokenizer; from the cache if it has them.

    Args:
        texts: The texts.
        second: For pairs, the second text of each.
        tokenizer: The tokenizer.
        length: Most tokens of an example; longer ones lose their end.
        cache: Folder of cached ids; None keeps none.
        name: Name of the texts, for messages.

    Raises:
        DataError: The library is missing, or the tokenizer is damaged.
    """
    file = None
    if cache is not None:
        file = cache / f"tokens-{key_of(texts, second, tokenizer.fingerprint, length)}.safetensors"
    found = None if file is None else _load(file)
    if found is None:
        found = _encode(texts, second, load_tokenizer(tokenizer, length))
        if file is not None:
            _save(file, found)
    if found.cut and is_leader():
        notice(
            f"{found.cut} of {len(texts)} texts of {name} have more than {length} tokens and lose their end "
            "(dataset.max_length)"
        )
    return found


def decode(ids: Sequence[int], reference: str) -> str:
    """The text of token ids, without special tokens; upper case and some spaces may be lost.

    Args:
        ids: The ids.
        reference: The tokenizer, as `dataset.tokenizer` names it.
    """
    tokenizer = load_tokenizer(tokenizer_file(reference, "dataset.tokenizer"), len(ids) + 3)
    return tokenizer.decode(list(ids), skip_special_tokens=True)


def key_of(texts: Sequence[str], second: Sequence[str] | None, fingerprint: str, length: int) -> str:
    """A hash that changes with any text, the order, the tokenizer and the length, as 24 hex digits.

    Example:
        >>> key_of(["ab", "c"], None, "f", 8) == key_of(["a", "bc"], None, "f", 8)
        False
    """
    content = hashlib.sha256(f"{VERSION} {fingerprint} {length} {second is not None}".encode())
    for text in (*texts, *(second or ())):
        raw = text.encode("utf-8", "surrogatepass")
        content.update(len(raw).to_bytes(8, "little"))
        content.update(raw)
    return content.hexdigest()[:24]


def load_tokenizer(file: TokenizerFile, length: int) -> Any:
    """The tokenizer of a file, which cuts texts at `length` tokens. Raises DataError if it is missing or damaged."""
    if find_spec("tokenizers") is None:
        raise DataError("data sets of text need tokenizers, which is not installed: pip install 'kdx[text]'")
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(file.path))
    except Exception as error:  # the library raises plain Exception
        raise DataError(f"the tokenizer {file.path} is damaged ({reason(error)[:120]}); reinstall it") from error
    if length <= tokenizer.num_special_tokens_to_add(False):
        raise DataError(f"dataset.max_length={length} leaves no room for a token beside the special ones; raise it")
    tokenizer.no_padding()
    tokenizer.enable_truncation(length)
    return tokenizer


def _encode(texts: Sequence[str], second: Sequence[str] | None, tokenizer: Any) -> Encoded:
    ids: list[int] = []
    types: list[int] = []
    lengths: list[int] = []
    cut = 0
    for at in range(0, len(texts), CHUNK):
        part: list[Any] = list(texts[at : at + CHUNK])
        if second is not None:
            part = list(zip(part, second[at : at + CHUNK], strict=True))
        for one in tokenizer.encode_batch(part):
            ids += one.ids
            lengths.append(len(one.ids))
            cut += bool(one.overflowing)
            if second is not None:
                types += one.type_ids
    kinds = torch.tensor(types, dtype=torch.uint8) if second is not None else None
    return Encoded(torch.tensor(ids, dtype=torch.int32), torch.tensor(lengths, dtype=torch.int64), kinds, cut)


def _load(file: Path) -> Encoded | None:
    """The cached ids; None if there are none, or if the file is damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        found = load(file.read_bytes())
        whole = Encoded(found["ids"], found["lengths"], found.get("types"), int(found["cut"]))
        return whole if len(whole.ids) == int(whole.lengths.sum()) else None
    except (OSError, KeyError, SafetensorError):
        return None


def _save(file: Path, found: Encoded) -> None:
    from safetensors.torch import save

    if not is_leader():
        return
    tensors = {"ids": found.ids, "lengths": found.lengths, "cut": torch.tensor(found.cut)}
    if found.types is not None:
        tensors["types"] = found.types
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(file) as target:
            target.write(save(tensors))
    except OSError as error:
        say(f"token ids are not cached: {reason(error)}")
