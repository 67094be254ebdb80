"""Composes generated commands, most of them wrong, and checks the messages: no traceback, short, with the key.

    python scripts/override_fuzz.py --commands 1000 --seed 0

A command has one to three overrides. Each wrong one must give one line that names its key, of fewer than 300
characters, without control characters. Nothing is trained: a config that is right ends before its run.
Exit status 1 if a command misbehaves; the file FILE of `--to FILE` gets a line for each such command.
"""

import argparse
import contextlib
import io
import json
import random
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

LONGEST = 300
Made = tuple[list[str], str, bool]  # overrides, the key that a message must name, whether the command must be refused

GROUPS = ("method", "dataset", "student", "teacher", "optimizer", "schedule", "trainer", "transfer", "logger", "update")
OPTIONS = {
    "method": "kd dkd crd dml fitnet supervised mlkd",
    "dataset": "digits synthetic plane cifar100",
    "student": "resnet8 mlp_30 resnet20 wrn_16_1",
    "teacher": "resnet8 resnet56 mlp_400",
    "optimizer": "sgd adamw",
    "schedule": "cosine constant multistep",
    "trainer": "default quick",
    "transfer": "train noise heldout specialist other",
    "logger": "jsonl none wandb",
    "update": "joint",
}
KEY_NAMES = """
seed data_seed fresh method.temperature method.weights.kd optimizer.lr optimizer.momentum trainer.batch_size
trainer.threads trainer.precision trainer.duration.epochs trainer.duration.steps dataset.fraction
dataset.val_fraction dataset.root paths.outputs paths.data student.net.widths teacher.checkpoint teacher.seed
teacher.recipe evals.test.every transfer.held_out student.checkpoint trainer.device logger.mode
"""
KEYS = KEY_NAMES.split()
SCALAR_TEXTS = """
1 -1 0 1.5 1e400 -1e400 99999999999999999999999999 nan inf -inf true null abc 50% ??? 1_000 0x10 1e-9 007 .5
''
"""
SCALARS = SCALAR_TEXTS.split()
# fmt: off
ODD = (
    "[1,2]", "[a,b]", "{a:1}", "{a:{b:c}}", "[]", "{}", "[[1]]", "${nope}", "${seed}", "${oc.env:NOPE}",
    "${oc.env:HOME}",
    "${oc.decode:[1}", "${nope:1}", "${", "${.x}", "${..seed}", "a=b", "'a=b'", '"x', "a b", "a,b", "1,2", "range(1,4)",
    "choice(1,2)", "interval(0,1)", "glob(*)", "tag(x,1)", "shuffle(1,2)", "sort(2,1)", "int(abc)", "str(1)", "ä",
    "日本",
    "\u202e", "x\ny", "x\ry", "x\x1b[31my", "x\x00y", "\t", "x" * 5000, "[" * 300, "(" * 50, "{" * 50, "\\", "'", "\r",
    "value\r", "/dev/zero", "/nonexistent", ".", "", "  ", "*", "&a", "!!python/object:os.system", "#x", "%", "@",
    "`id`",
    "$(id)", "{_target_:os.system}", "{_target_: kdx.nope.X}", "[{_target_:os.system}]",
)
# fmt: on


HYDRA = ("hydra.run.dir", "hydra.sweep.dir", "hydra.launcher.n_jobs", "hydra.job.chdir", "hydra.nope", "hydra/launcher")
READY_MADE = ("temperature", "nope", "[temperature]", "", "temperature,regime", "TEMPERATURE")


def value(draw: random.Random) -> str:
    return draw.choice(SCALARS) if draw.random() < 0.4 else draw.choice(ODD)


def misspelt(word: str, draw: random.Random) -> str:
    place = draw.randrange(len(word))
    return draw.choice([word[:place] + word[place + 1 :], word + "s", word[:place] + "z" + word[place:], word.upper()])


def some_key(draw: random.Random) -> Made:
    key = draw.choice(KEYS)
    return [f"{key}={value(draw)}"], key, False


def some_group(draw: random.Random) -> Made:
    group = draw.choice(GROUPS)
    return [f"{group}={value(draw)}"], group, False


def list_for_group(draw: random.Random) -> Made:
    group = draw.choice(GROUPS)
    names = OPTIONS[group].split()
    return [f"{group}=[{draw.choice(names)},{draw.choice(names)}]"], group, True


def two_options(draw: random.Random) -> Made:
    group = draw.choice(GROUPS)
    names = OPTIONS[group].split()
    return [f"{group}={draw.choice(names)},{draw.choice(names)}"], group, True


def misspelt_key(draw: random.Random) -> Made:
    key = draw.choice(KEYS)
    head, dot, last = key.rpartition(".")
    wrong = f"{head}{dot}{misspelt(last, draw)}"
    return [f"{wrong}=1"], wrong, wrong not in KEYS


def misspelt_option(draw: random.Random) -> Made:
    group = draw.choice(GROUPS)
    return [f"{group}={misspelt(draw.choice(OPTIONS[group].split()), draw)}"], group, False


def added(draw: random.Random) -> Made:
    key = draw.choice(KEYS)
    sign = draw.choice(["+", "++", "~", "+"])
    return [f"{sign}{key}={value(draw)}" if sign != "~" or draw.random() < 0.5 else f"~{key}"], key, False


def noise(draw: random.Random) -> Made:
    word = "".join(draw.choice("abz=.,[]{}()'\"\\+~@ $%-_/:\n\r\té") for _ in range(draw.randint(1, 30)))
    return [word.lstrip("-") or "x"], "", False


def sweep(draw: random.Random) -> Made:
    key = draw.choice(KEYS)
    return ["-m", f"{key}={value(draw)},{value(draw)}"], key, False


def hydra(draw: random.Random) -> Made:
    key = draw.choice(HYDRA)
    return [*draw.choice([[], ["-m"]]), f"{key}={value(draw)}"], key, False


def ready_made(draw: random.Random) -> Made:
    return [f"sweep={draw.choice(READY_MADE)}"], "sweep", False


MAKERS: Sequence[Callable[[random.Random], Made]] = (
    some_key, some_key, some_key, some_group, list_for_group, two_options, misspelt_key, misspelt_option, added, noise,
    sweep, hydra, ready_made,
)  # fmt: skip


def make(draw: random.Random) -> tuple[list[str], list[str], bool]:
    """A command: its words, the keys of its overrides, and whether it must be refused."""
    words, keys, wrong = [], [], False
    for _ in range(draw.choice([1, 1, 1, 2, 3])):
        own, key, must = draw.choice(MAKERS)(draw)
        words += [word for word in own if word not in words]
        keys += [key] if key else []
        wrong |= must
    return words, keys, wrong and "-m" not in words


class PassedError(BaseException):
    """The command was right."""


def attempt(words: Sequence[str]) -> tuple[int, list[str], str]:
    """Exit status (0 if the config was right), lines of standard error, and the traceback if there was one."""
    from hydra.core.global_hydra import GlobalHydra

    from kdx.cli import main

    GlobalHydra.instance().clear()
    said, code = io.StringIO(), 0
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            main(["train", *words])
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        except PassedError:
            code = 0
        except BaseException:
            return 70, said.getvalue().splitlines(), traceback.format_exc()
    return code, [line for line in said.getvalue().split("\n") if line], ""


def complaint(words: Sequence[str], keys: Sequence[str], wrong: bool) -> str | None:
    """The fault in the answer to a command; None if there is none."""
    from kdx.core.errors import shown

    code, lines, trace = attempt(words)
    if trace or any("Traceback" in line for line in lines):
        return "a traceback: " + "; ".join((trace or "\n".join(lines)).strip().splitlines()[-2:])
    if code == 0:
        return "accepted" if wrong else None
    if not lines:
        return f"exit status {code} without a message"
    for line in lines:
        if not line.startswith("kdx: "):
            return f"a line that is no message of kdx: {line[:200]!r}"
        if len(line) >= LONGEST:
            return f"{len(line)} characters: {line[:200]!r}"
        if not line.isprintable():
            return f"control characters: {line[:200]!r}"
    # a word that cannot be read hides the other words, and is quoted itself
    marks = [*keys, *(key.rpartition(".")[2] for key in keys), *(shown(word)[:20] for word in words)]
    if not any(mark and mark in line for mark in marks for line in lines):
        return f"names none of {', '.join(keys)}: {lines[0][:200]!r}"
    if len(lines) > len(words) + 1:
        return f"{len(lines)} lines for {len(words)} overrides: {lines[1][:200]!r}"
    return None


def stop_before_training() -> None:
    import kdx.train
    from kdx.runs.prepare import prepare

    def stop(composed: Any, sweeps: bool) -> None:
        prepare(composed)
        raise PassedError

    kdx.train._train = stop


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commands", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0, help="number of the first command")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--to", type=Path, help="file of misbehaving commands")
    given = parser.parse_args()
    stop_before_training()
    from kdx.runs import signals

    counts, bad = Counter[str](), []
    signals.install = lambda: None  # a command would take the signal for itself
    ended = list[int]()  # by SIGTERM: those that ran are counted
    signal.signal(signal.SIGTERM, lambda number, _: ended.append(number))
    for number in range(given.first, given.first + given.commands):
        if ended:
            break
        words, keys, wrong = make(random.Random(f"{given.seed} {number}"))
        problem = complaint(words, keys, wrong)
        counts["right" if problem is None else problem.split(":")[0]] += 1
        if problem is not None:
            bad.append({"number": number, "words": words, "problem": problem})
            print(json.dumps(bad[-1])[:600], flush=True)
    print(f"{counts['right']} of {counts.total()} commands behave, from {given.first} on; {dict(counts)}")
    if given.to is not None:
        given.to.write_text("".join(json.dumps(line) + "\n" for line in bad))
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
