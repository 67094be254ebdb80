"""Every network of timm and torchvision with every method that reads features, as teacher and as student.

    python scripts/zoo_networks.py [--only swin,vit] [--methods at,simkd] [--again] [--minutes 45]

For each module of timm and each classifier of torchvision, the smallest variant is built with random weights at the
smallest input of 64 pixels or more that it takes, so that its last map has several positions. Its features are compared
with the library's own (`forward_intermediates`, `forward_head` before the classifier, the logits), by value and with
random norms. Then each method takes one step, forward and backward, at its default keys: "works" means that it builds,
that its value is finite, and that the student's features have a finite gradient, not zero. Otherwise the method's
sentence is kept.

The other network of each pair is kdx's vgg8;
methods that need equal widths are paired with the network itself, on other inputs.
Results lie in `outputs/zoo_networks/NAME.json`, one for each network, with the commit that each method was run at; what
is there is not run again. `--again` runs what another commit has made. Writes `outputs/tables/networks.md` after each
network; `--minutes 0` does this alone.
"""

import argparse
import json
import re
import subprocess
import time
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from zoo_networks_steps import MAIN, METHODS, build, measure
from zoo_networks_table import table

STATE, TABLE = Path("outputs/zoo_networks"), Path("outputs/tables/networks.md")
SIZE = r"_(t|s|b|l|h|tiny|small|base|large)(_.*)?$|(?<!_v)[0-9].*$"
WORDS = (
    "zepto",
    "atto",
    "femto",
    "pico",
    "nano",
    "n",
    "xxs",
    "xxt",
    "xxtiny",
    "xt",
    "xs",
    "tiny",
    "ti",
    "t",
    "mini",
    "s",
    "small",
)


def networks() -> dict[str, Callable[[], list[str]]]:
    """Names of the variants of each module of timm and of each classifier of torchvision, by the name of the row."""
    import timm
    from torchvision import models

    found: dict[str, Callable[[], list[str]]] = {
        f"timm/{module}": lambda module=module: [
            n for n in timm.list_models(module=module) if not n.startswith("test_")
        ]
        for module in timm.list_modules()
    }
    families: dict[str, list[str]] = {}
    for name in models.list_models(module=models):
        module = models.get_model_builder(name).__module__.rpartition(".")[2]
        family = f"{module} {re.sub(SIZE, '', name)}"
        families.setdefault(family, []).append(name)
    for family, names in families.items():
        found[f"torchvision/{family.partition(' ')[2].rstrip('_')}"] = lambda names=names: names
    return found


def smallest(library: str, names: list[str]) -> str:
    """The variant with the fewest parameters among the three whose names say the smallest sizes."""
    counts = {}
    for name in sorted(names, key=rank)[:3]:
        try:
            with torch.device("meta"):
                counts[name] = sum(p.numel() for p in build(library, name, None).parameters())
        except Exception:  # some constructors compute with real numbers
            continue
    return min(counts, key=lambda n: counts[n]) if counts else min(names, key=len)


def rank(name: str) -> tuple[float, float, int]:
    """Order of names by the size that they give in words, then in numbers."""
    words = re.split(r"[_.]", name)
    known = [WORDS.index(word) for word in words if word in WORDS]
    numbers = [
        float(n)
        for word in words
        for n in re.findall(r"^(?:[a-z]+)?(\d+)", word)
        if not re.match(r"patch|window|res", word)
    ]
    return (min(known, default=WORDS.index("s") + 0.5), min(numbers, default=0.0), len(name))


def path(row: str) -> Path:
    """The file of a network's results."""
    return STATE / f"{row.replace('/', '-')}.json"


def results(row: str) -> dict[str, Any]:
    """A network's results; empty if there are none."""
    return json.loads(path(row).read_text()) if path(row).exists() else {}


def commit() -> str:
    """The commit of the code, marked where files differ from it."""
    name = subprocess.run(["git", "rev-parse", "--short=7", "HEAD"], capture_output=True, text=True, check=True)
    same = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", "kdx", "configs", "scripts"]).returncode == 0
    return name.stdout.strip() + ("" if same else "-dirty")


def write(rows: Mapping[str, object]) -> None:
    """Write the table of all results so far."""
    found = {row: of for row in rows if (of := results(row))}
    TABLE.parent.mkdir(parents=True, exist_ok=True)
    TABLE.write_text(table(found, len(rows), MAIN, METHODS))


def main() -> None:
    """Run what is missing, and write the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="", help="parts of names, comma-separated")
    parser.add_argument("--methods", default="", help="names, comma-separated; all if empty")
    parser.add_argument("--again", action="store_true", help="run again what was run at another commit")
    parser.add_argument("--minutes", type=float, default=45.0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    STATE.mkdir(parents=True, exist_ok=True)
    end = time.time() + 60 * given.minutes
    rows, now = networks(), commit()
    asked = [method for method in METHODS if not given.methods or method in given.methods.split(",")]
    for row, names in rows.items():
        before = results(row)
        made = before.get("commits", {})
        known = [m for m in before.get("student", {}) if not given.again or made.get(m) == now]
        missing = [method for method in asked if method not in known]
        chosen = not given.only or any(part in row for part in given.only.split(","))
        if chosen and missing and time.time() < end:
            name = before.get("name") or smallest(row.partition("/")[0], names())
            try:  # in a process of its own, which ends with the memory that the network took
                with ProcessPoolExecutor(1, mp_context=get_context("fork")) as child:
                    result = child.submit(measure, row, name, missing, before).result()
                result["commits"] = made | dict.fromkeys(missing, now)
            except Exception as problem:
                text = str(problem).splitlines() or [""]
                result = {"name": name, "problem": f"{type(problem).__name__}: {text[0][:250]}"}
            path(row).write_text(json.dumps(result, indent=1) + "\n")
            write(rows)
            print(
                row, result["name"], result.get("problem") or f"{result['size']} px, {result['seconds']} s", flush=True
            )
    write(rows)


if __name__ == "__main__":
    main()
