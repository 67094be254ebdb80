"""Damages the files of runs, one at a time, and checks the answers of each command that reads them.

    python scripts/damage_campaign.py                 # 20 damages of each kind of file; resumable
    python scripts/damage_campaign.py --damages 5 --fresh

The files are those of a finished run and of the run that trained its teacher. After each damage `status`, `report`,
`compare` and `train` run in this process. An answer is wrong if it is a traceback, or if a command fails or prints
something else than before and no message names the damaged file. Exit status 1 if an answer is wrong.
"""

import argparse
import contextlib
import io
import json
import os
import random
import shutil
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))


def flipped(content: bytes, draw: random.Random) -> bytes:
    if not content:
        return b"x"
    place = draw.randrange(len(content))
    return content[:place] + bytes([content[place] ^ (1 << draw.randrange(8))]) + content[place + 1 :]


def swapped(content: bytes, draw: random.Random) -> bytes:
    digits = [i for i, byte in enumerate(content) if 48 <= byte <= 57]
    if not digits:
        return content + b"7"
    place = draw.choice(digits)
    return content[:place] + (b"3" if content[place : place + 1] != b"3" else b"8") + content[place + 1 :]


Damage = Callable[[bytes, random.Random], bytes | None]  # None removes the file
DAMAGES: Sequence[Damage] = (
    *[flipped] * 6,
    *[swapped] * 4,
    lambda content, draw: content[: len(content) // 2],
    lambda content, draw: content[: draw.randrange(len(content) + 1)],
    lambda content, draw: content[draw.randrange(len(content) + 1) :],
    lambda content, draw: b"",
    lambda content, draw: None,
    lambda content, draw: draw.randbytes(500),
    lambda content, draw: b"\x00" * len(content),
    lambda content, draw: content + content,
    lambda content, draw: b"[1, 2]",
    lambda content, draw: b"\xff\xfe" + content,
)


def answer(*words: str) -> tuple[int, str, str]:
    """Exit status, output, and messages or the traceback of a command."""
    from hydra.core.global_hydra import GlobalHydra

    from kdx.cli import main

    GlobalHydra.instance().clear()
    out, err = io.StringIO(), io.StringIO()
    code: object = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(list(words))
        except SystemExit as end:
            code = end.code
        except BaseException:
            return 70, out.getvalue(), f"Traceback: {traceback.format_exc()[-400:]}"
    return code if isinstance(code, int) else 1, out.getvalue(), err.getvalue()


def steady(text: str) -> str:
    """Output without the times that two runs of a command may show differently."""
    return "\n".join(line for line in text.splitlines() if "examples/s" not in line and "page" not in line)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--damages", type=int, default=len(DAMAGES))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--to", type=Path, default=ROOT / "build" / "damages")
    parser.add_argument("--fresh", action="store_true", help="start again; otherwise what is recorded is skipped")
    given = parser.parse_args()
    place = given.to.resolve()
    if given.fresh:
        shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True, exist_ok=True)
    os.chdir(place)
    os.environ["OMP_NUM_THREADS"] = "1"
    from kill_kinds import OWN, train

    from kdx.runs import signals

    signals.install = lambda: None  # a command would take the campaign's signals for its own

    train_words = [*train("method=kd", "trainer.checkpoint_seconds=0", teacher=OWN), f"paths.outputs={place}/state"]
    if not (place / "whole").exists():
        shutil.rmtree(place / "state", ignore_errors=True)
        for seed in (0, 1):
            code, _, err = answer(*train_words, f"seed={seed}", "teacher.seed=0")
            if code:
                raise SystemExit(f"the undisturbed run failed: {err}")
        shutil.copytree(place / "state", place / "whole.part")
        (place / "whole.part").rename(place / "whole")
    shutil.rmtree(place / "state", ignore_errors=True)
    shutil.copytree(place / "whole", place / "state")
    first = next(path for path in (place / "state" / "runs").iterdir() if "seed0" in path.name)
    second = next(path for path in (place / "state" / "runs").iterdir() if "seed1" in path.name)
    (teacher,) = (place / "state" / "teachers").iterdir()
    commands = {
        "status": ("status", f"{place}/state"),
        "report": ("report", f"{place}/state/runs", f"to={place}/page", "pictures=false"),
        "compare": ("compare", str(first), str(second)),
        "train": (*train_words, "seed=0", "teacher.seed=0"),
    }
    calm = {name: answer(*words) for name, words in commands.items()}
    record = place / f"record-{given.seed}.jsonl"
    lines = [json.loads(line) for line in record.read_text().splitlines()] if record.exists() else []
    done = {(line["file"], line["damage"]) for line in lines}
    victims = [path for folder in (first, teacher) for path in sorted(folder.iterdir()) if path.is_file()]
    for victim in victims:
        for number, damage in enumerate(DAMAGES[: given.damages]):
            name = f"{victim.parent.parent.name}/{victim.name}"
            if (name, number) in done:
                continue
            draw = random.Random(f"{given.seed} {victim.name} {number}")
            shutil.rmtree(place / "state")
            shutil.copytree(place / "whole", place / "state")
            content = damage(victim.read_bytes(), draw)
            if content == victim.read_bytes():
                continue
            if content is None:
                victim.unlink()
            else:
                victim.write_bytes(content)
            # a run without DONE is an unfinished run, of which its folder is named
            named = {victim.name, victim.parent.name} if victim.name == "DONE" and content is None else {victim.name}
            problems = {}
            for command, words in commands.items():
                code, out, err = answer(*words)
                said = out + err
                if "Traceback" in err:
                    problems[command] = err[-200:]
                elif (code or steady(out) != steady(calm[command][1])) and not any(word in said for word in named):
                    said = (err or out)[-200:]
                    problems[command] = f"exit status {code}, and no message names {victim.name}: {said}"
            lines.append({"file": name, "damage": number, "answers": len(commands), "problems": problems})
            with open(record, "a") as file:
                file.write(json.dumps(lines[-1]) + "\n")
            if problems:
                print(json.dumps(lines[-1]), flush=True)
    wrong, answers = sum(len(line["problems"]) for line in lines), sum(line["answers"] for line in lines)
    print(f"{answers - wrong} of {answers} answers are right, to {len(lines)} damages of {len(victims)} files")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
