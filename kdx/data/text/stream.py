"""Files of plain text as token ids in a file, written and read a part at a time."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from kdx.core.distributed import from_leader, is_leader
from kdx.core.pretrained import TokenizerFile
from kdx.data.sets import DataError
from kdx.data.text.tokenize import CHUNK, VERSION, Encoded, load_tokenizer

READ = 1 << 20  # bytes read at a time


def stored_ids(paths: Sequence[Path], tokenizer: TokenizerFile, length: int, shortest: int, cache: Path) -> Encoded:
    """Token ids of the lines of files, in a file that is mapped into memory and read as batches need it.

    The file is written once, by the leader, and found again by a hash of the files' contents, the tokenizer and both
    lengths. What an interrupted process wrote is left out.

    Args:
        paths: Text in UTF-8, a text a line; empty lines are left out.
        tokenizer: The tokenizer.
        length: Most tokens of a text; the rest of a longer line becomes a text of its own.
        shortest: Texts with fewer tokens are left out.
        cache: Folder of the file.

    Raises:
        DataError: A file is not in UTF-8, cannot be read, or the folder cannot be written.
    """
    key = _key(paths, tokenizer.fingerprint, length, shortest)
    ids, lengths = cache / f"lines-{key}.ids", cache / f"lines-{key}.npy"
    if is_leader():
        error = None
        try:
            if not lengths.exists():  # written last
                _write(paths, tokenizer, length, shortest, ids, lengths)
        except Exception as failed:
            error = failed
        from_leader(True, error)
    else:
        from_leader(None)
    counts = torch.from_numpy(np.load(lengths)).long()
    # copy on write: torch warns about arrays that it could not write to
    mapped = np.memmap(ids, np.int32, "c") if len(counts) else np.empty(0, np.int32)
    if len(mapped) != int(counts.sum()):
        raise DataError(f"the token ids {ids} are damaged; delete the file and {lengths.name}, and start again")
    return Encoded(torch.from_numpy(mapped), counts, None, 0)


def _write(
    paths: Sequence[Path], tokenizer: TokenizerFile, length: int, shortest: int, ids: Path, lengths: Path
) -> None:
    words, counts = load_tokenizer(tokenizer, length), []
    unfinished = [path.with_name(f"{path.name}.{os.getpid()}.tmp") for path in (ids, lengths)]
    try:
        ids.parent.mkdir(parents=True, exist_ok=True)
        with open(unfinished[0], "wb") as file:
            lines = _lines(paths)
            while part := list(islice(lines, CHUNK)):
                found = [each for one in words.encode_batch(part) for each in (one, *one.overflowing)]
                kept = [each.ids for each in found if len(each.ids) >= shortest]
                counts += map(len, kept)
                np.array([token for row in kept for token in row], dtype=np.int32).tofile(file)
        with open(unfinished[1], "wb") as file:
            np.save(file, np.array(counts, dtype=np.int32))
        for path, final in zip(unfinished, (ids, lengths), strict=True):
            os.replace(path, final)
    except OSError as error:
        raise DataError(f"dataset.index: {error.filename or ids}: {error.strerror}") from None
    finally:
        for path in unfinished:
            path.unlink(missing_ok=True)


def _lines(paths: Sequence[Path]) -> Iterator[str]:
    """The lines of files without surrounding spaces; empty ones are left out."""
    for path in paths:
        try:
            with open(path, encoding="utf-8-sig") as file:
                yield from filter(None, (line.strip() for line in file))
        except UnicodeDecodeError as error:
            raise DataError(f"{path} is no text file in UTF-8: {error}") from None


def _key(paths: Sequence[Path], fingerprint: str, length: int, shortest: int) -> str:
    content = hashlib.sha256(f"{VERSION} {fingerprint} {length} {shortest}".encode())
    for path in paths:
        own = hashlib.sha256()
        try:
            with open(path, "rb") as file:
                while part := file.read(READ):
                    own.update(part)
        except OSError as error:
            raise DataError(f"{path}: {error.strerror}") from None
        content.update(own.digest())
    return content.hexdigest()[:24]
