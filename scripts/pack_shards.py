"""Pack image folders, one per class, into shards of the WebDataset format, for `dataset=shards`.

    python scripts/pack_shards.py ~/data/imagenet/train ~/data/imagenet-wds/train-%06d.tar --per-shard 8700

Classes are numbered by name. Files are stored unchanged, in an order shuffled by the seed, so that each shard contains
all classes.
"""

import argparse
import random
import sys
from pathlib import Path

from webdataset.writer import ShardWriter

from kdx.core.errors import UserError
from kdx.data.sources.walk import SUFFIXES, Skipped, images_in, is_hidden


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder with one subfolder per class")
    parser.add_argument("shards", help="output pattern with a number: train-%%06d.tar")
    parser.add_argument("--per-shard", type=int, default=10_000, help="images per shard")
    parser.add_argument("--seed", type=int, default=0, help="seed of the order")
    asked = parser.parse_args()

    try:
        classes = sorted(e for e in asked.folder.iterdir() if e.is_dir() and not is_hidden(e.name))
        first = Path(asked.shards % 0)
    except OSError as error:
        sys.exit(f"cannot read {asked.folder}: {error.strerror}")
    except TypeError:
        sys.exit(f"{asked.shards} needs a placeholder for the shard's number, such as %06d")
    skipped = Skipped()
    try:
        found = images_in([str(entry) for entry in classes], skipped)
    except UserError as error:
        sys.exit(str(error))
    skipped.report(str(asked.folder))
    files = [(label, Path(path)) for label, paths in enumerate(found) for path in paths]
    if not files:
        sys.exit(f"{asked.folder} contains no folder with images ({', '.join(SUFFIXES)})")
    random.Random(asked.seed).shuffle(files)
    first.parent.mkdir(parents=True, exist_ok=True)
    with ShardWriter(asked.shards, maxcount=asked.per_shard, verbose=0) as shards:
        for number, (label, path) in enumerate(files):
            shards.write({"__key__": f"{number:08}", "cls": label, path.suffix[1:].lower(): path.read_bytes()})
    print(f"{len(files)} images of {len(classes)} classes")


if __name__ == "__main__":
    main()
