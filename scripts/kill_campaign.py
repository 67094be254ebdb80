"""Kills runs at random moments, starts them again, and compares what they leave with undisturbed runs, bit by bit.

    python scripts/kill_campaign.py --kills 200            # resumable: the same command continues
    python scripts/kill_campaign.py --kills 20 --kind memo --seed 7

Two of five kills fall inside a write, in kinds whose writes happen in the killed process: half-way through a file that
is written atomically, before a rename, half-way through a line of the record, or half-way through a row of a memo. The
others come at a random share of the CPU time that the undisturbed command took. A kill hits one process; every other
process of the command must end by itself soon. Exit status 1 if a trial was not exact.

The hooks in the killed process and the trials that choose them stay in one file.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kill_kinds import KINDS, Kind, write_inputs

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "support"))
# The other processes of a killed command must end before they stand still for so long, or take so much CPU time.
# Limits of wall time alone would fail on a busy machine, where an import takes minutes.
STILL, BUSY = 60.0, 20.0  # seconds
WRITES = ("file", "rename", "line", "row")


class Writes:
    """Counts the writes of this process, and kills it inside one of them.

    Args:
        kind: One of `WRITES`; None only counts.
        call: Which write of this kind, from 1.
    """

    def __init__(self, kind: str | None, call: int):
        self.kind, self.call, self.seen = kind, call, Counter[str]()

    def install(self) -> None:
        from kdx.engine.record.log import Log

        fsync, replace, pwrite, write = os.fsync, os.replace, os.pwrite, Log.write

        def half_a_file(file: int) -> None:
            if self._due("file"):
                os.ftruncate(file, os.fstat(file).st_size // 2)
                self._die()
            fsync(file)

        def before_a_rename(*arguments: Any, **named: Any) -> None:
            if self._due("rename"):
                self._die()
            replace(*arguments, **named)

        def half_a_row(file: int, row: bytes, place: int) -> int:
            if self._due("row"):
                pwrite(file, row[: len(row) // 2], place)
                self._die()
            return pwrite(file, row, place)

        def half_a_line(log: Log, line: Mapping[str, float]) -> None:
            if self._due("line") and log.path is not None:
                with open(log.path, "ab") as file:
                    file.write(json.dumps(dict(line)).encode()[:30])
                self._die()
            write(log, line)

        os.fsync, os.replace, os.pwrite = half_a_file, before_a_rename, half_a_row
        setattr(Log, "write", half_a_line)  # noqa: B010 - pyright refuses the assignment

    def _due(self, kind: str) -> bool:
        self.seen[kind] += 1
        return kind == self.kind and self.seen[kind] == self.call

    def _die(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


started: set[int] = set()  # groups of processes


def start(kind: Kind, folder: Path, writes: Writes | None) -> list[int]:
    """Start a kind's command in processes of their own group; returns their ids, the leader's first."""
    port = str(random.SystemRandom().randrange(20000, 60000))
    pids: list[int] = []
    for rank in range(kind.processes):
        pid = os.fork()
        if pid == 0:
            try:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                os.setpgid(0, pids[0] if pids else 0)
                if kind.processes > 1:
                    places = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": kind.processes, "MASTER_PORT": port}
                    os.environ |= {name: str(value) for name, value in places.items()} | {"MASTER_ADDR": "127.0.0.1"}
                _command(kind, folder, writes if rank == 0 else None)
            finally:
                os._exit(70)
        pids.append(pid)
    started.add(pids[0])
    return pids


def stop_all(*_: object) -> None:
    """End the campaign and the commands that it started."""
    for group in started:
        with contextlib.suppress(OSError):
            os.killpg(group, signal.SIGKILL)
    os._exit(128 + signal.SIGTERM)


def _command(kind: Kind, folder: Path, writes: Writes | None) -> None:
    os.chdir(folder)
    output = os.open(folder / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    if writes is not None:
        writes.install()
    from kdx.cli import main

    code: Any = 0
    try:
        main([*kind.arguments, f"paths.outputs={folder}"])
    except SystemExit as end:
        code = end.code
    if writes is not None:
        (folder / "writes.json").write_text(json.dumps(writes.seen))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 1)


def living(group: int) -> dict[int, float]:
    """CPU time in seconds of the living processes of a group, by id."""
    found: dict[int, float] = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                fields = Path(entry.path, "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[2]) == group and fields[0] != "Z":
                found[int(entry.name)] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return found


def group_seconds(group: int) -> float | None:
    """CPU time of all living processes of a group, in seconds; None if there are none."""
    found = living(group)
    return sum(found.values()) if found else None


def described(pid: int) -> str:
    """The command of a process and what it waits for in the kernel."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        return f"{command[:90]} (in {Path(f'/proc/{pid}/wchan').read_text() or 'user code'})"
    except OSError:
        return "gone meanwhile"


def wait_for(pids: list[int], until: Callable[[], bool], limit: float) -> list[int | None]:
    """Exit codes of processes, None for those that live when `until` holds or the limit in seconds has passed."""
    codes: dict[int, int] = {}
    ends = time.monotonic() + limit
    while len(codes) < len(pids) and not until() and time.monotonic() < ends:
        for pid in pids:
            if pid not in codes:
                found, status = os.waitpid(pid, os.WNOHANG)
                if found:
                    codes[pid] = os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    return [codes.get(pid) for pid in pids]


def run_to_the_end(kind: Kind, folder: Path, writes: Writes | None = None) -> str:
    """Run a command; returns why it did not succeed, or an empty text."""
    pids = start(kind, folder, writes)
    codes = wait_for(pids, lambda: False, 1800)
    for pid, code in zip(pids, codes, strict=True):
        if code is None:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    last = (folder / "output.txt").read_text().splitlines()[-1:]
    return "" if set(codes) == {0} else f"exit codes {codes}: {''.join(last)[:200]}"


Calm = Mapping[str, Any]  # outcomes, writes and CPU time of an undisturbed command


def kill_once(kind: Kind, folder: Path, calm: Calm, draw: random.Random, in_write: bool) -> tuple[str, str]:
    """Start a command and kill it; returns how it was killed, and why this trial fails already, or an empty text."""
    writes, moment = None, 0.0
    if in_write:
        kinds = [name for name in WRITES if calm["writes"].get(name)]
        name = draw.choice(kinds)
        writes = Writes(name, draw.randint(1, calm["writes"][name]))
        how = f"in a write ({name} {writes.call} of {calm['writes'][name]})"
    else:
        moment = draw.uniform(0.0, calm["seconds"])
        how = f"after {moment:.2f} of {calm['seconds']:.2f} s"
    pids = start(kind, folder, writes)
    if writes is not None:
        codes = wait_for(pids, lambda: False, 600)
    else:
        codes = wait_for(pids, lambda: (group_seconds(pids[0]) or 0.0) >= moment, 600)
        victim = draw.choice([pid for pid, code in zip(pids, codes, strict=True) if code is None] or [0])
        if victim:
            os.kill(victim, signal.SIGKILL)
        else:
            how += ", too late"
    for pid, code in zip(pids, codes, strict=True):
        if code is None and len(pids) > 1:
            os.kill(pid, signal.SIGKILL)  # as torchrun does when a rank has died
        if code is None:
            os.waitpid(pid, 0)
    first = last = group_seconds(pids[0]) or 0.0
    moved = time.monotonic()
    while (seconds := group_seconds(pids[0])) is not None:
        if seconds != last:
            last, moved = seconds, time.monotonic()
        if seconds - first > BUSY or time.monotonic() - moved > STILL:
            left = "; ".join(map(described, living(pids[0])))
            os.killpg(pids[0], signal.SIGKILL)
            return how, f"processes were left behind, {seconds - first:.1f} s of CPU time after the kill: {left}"
        time.sleep(0.05)
    return how, ""


def outcomes(folder: Path) -> dict[str, Any]:
    """The outcomes of all runs below a folder, without times and the number of runs that trained together."""
    from traces import logged, outcome  # pyright: ignore[reportMissingImports] - in tests/support

    found: dict[str, Any] = {}
    for mark in sorted(folder.rglob("DONE")):
        run = mark.parent
        left = outcome(run)
        if left["teacher"] is not None and "memo" in left["teacher"]:
            del left["teacher"]["memo"]["share_computed"]  # a killed run has read some rows before
        found[run.relative_to(folder).as_posix()] = {key: value for key, value in left.items() if key != "fused"}
        if (run / "wandb").is_dir():
            found[f"{run.name}, W&B"] = [{k: v for k, v in line.items() if "time/" not in k} for line in logged(run)]
    return found


def trial(number: int, name: str, place: Path, calm: Calm, seed: int) -> dict[str, Any]:
    """One kill, and the comparison; a line of the campaign's record."""
    kind, draw = KINDS[name], random.Random(f"{seed} {number}")
    folder = place / f"trial-{number}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    in_write = not kind.workers and number // len(KINDS) % 5 in (1, 3)
    how, wrong = kill_once(kind, folder, calm, draw, in_write)
    if not wrong:
        wrong = run_to_the_end(kind, folder)
    if not wrong:
        expected, found = calm["outcomes"], outcomes(folder)
        differ = [run for run in sorted(expected.keys() | found.keys()) if expected.get(run) != found.get(run)]
        wrong = f"another outcome than undisturbed: {', '.join(differ)}" if differ else ""
    if not wrong:
        shutil.rmtree(folder)
    return {"number": number, "kind": name, "kill": how, "exact": not wrong, "wrong": wrong}


def undisturbed(name: str, place: Path) -> dict[str, Any]:
    """Run a kind without a kill: its outcomes, its writes and its CPU time."""
    folder = place / "calm" / name.replace(" ", "-").replace("&", "")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    kind = KINDS[name]
    pids = start(kind, folder, Writes(None, 0))
    seconds = [0.0]

    def measured() -> bool:
        seconds.append(group_seconds(pids[0]) or 0.0)
        return False

    codes = wait_for(pids, measured, 1800)
    if set(codes) != {0}:
        raise SystemExit(f"{name}: exit codes {codes}; see {folder}/output.txt")
    writes = json.loads((folder / "writes.json").read_text())
    return {"seconds": max(seconds), "writes": writes, "outcomes": outcomes(folder)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", choices=list(KINDS), help="kill only this kind")
    parser.add_argument("--to", type=Path, default=ROOT / "build" / "kills", help="folder of runs and record")
    given = parser.parse_args()
    place = given.to.resolve()
    place.mkdir(parents=True, exist_ok=True)
    write_inputs(place)
    os.environ |= {"KDX_KILLS": str(place)}
    os.environ |= {"KDX_CONFIGS": str(place / "configs"), "OMP_NUM_THREADS": "1", "WANDB_SILENT": "true"}
    # imported once: each command is a fork of this process
    import timm.data.mixup  # noqa: F401
    import torch
    import wandb  # noqa: F401

    import kdx.pool.pool
    import kdx.train  # noqa: F401

    torch.set_num_threads(1)
    signal.signal(signal.SIGTERM, stop_all)
    record = place / f"record-{given.seed}.jsonl"
    lines = [json.loads(line) for line in record.read_text().splitlines()] if record.exists() else []
    done = {line["number"] for line in lines}
    calm: dict[str, dict[str, Any]] = {}
    for number in range(given.kills):
        name = given.kind or list(KINDS)[number % len(KINDS)]
        if number in done:
            continue
        if name not in calm:
            calm[name] = undisturbed(name, place)
        line = trial(number, name, place, calm[name], given.seed)
        lines.append(line)
        with open(record, "a") as file:
            file.write(json.dumps(line) + "\n")
        exact = sum(line["exact"] for line in lines)
        print(f"{exact} of {len(lines)} exact; {name}: killed {line['kill']}; {line['wrong'] or 'exact'}", flush=True)
    inside = sum("in a write" in line["kill"] for line in lines)
    print(f"{sum(line['exact'] for line in lines)} of {len(lines)} exact, {inside} of the kills inside a write")
    sys.exit(any(not line["exact"] for line in lines))


if __name__ == "__main__":
    main()
