"""What lungan is attacked with, a try at a time: the slow tests make a few, ``soak.py`` an hour's.

Each attack is a function of a random generator and of an ``Arena``, and counts what it finds.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import functools
import hashlib
import importlib
import io
import json
import multiprocessing
import os
import pickle
import pty
import random
import shutil
import signal
import subprocess
import sys
import termios
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch
from PIL import Image
from pydicom.uid import DeflatedExplicitVRLittleEndian

from lungan.cli import FAILED, INTERRUPTED
from lungan.data.build import read_images
from lungan.data.scale import Wanted, quiet, read_image
from lungan.errors import ConfigError, LunganError
from lungan.models.saving import load_generator
from lungan.runs.folder import read_config
from lungan.scores.weights import read_tensors
from tests.attack import test_arguments, test_damaged_files
from tests.attack.conftest import TINY
from tests.data.test_dicom import dicom

ROOT = Path(__file__).resolve().parents[2]
EPOCHS = 12
SEEDS = 4
NUM_WORKERS = 8
PATIENCE_SECONDS = 1800
"""Until a command counts as one that hangs: on a machine with no time to spare, all takes long."""
BAD_INPUT = ConfigError.exit_code
RUN = (*TINY, f"epochs={EPOCHS}", "checkpoint_every_epochs=2", "batch_size=16")
SWEEP = ("--multirun", "--sweep", "study", f"seed=range(0,{SEEDS})", "hydra/launcher=basic")
SEARCH = (
    *("--sweep", "found", "--trials", "2", "--objective", "spectrum.frechet_distance"),
    *("--sampler", "random", "score=fast", "score.encoders=[spectrum]", "score.memorization=false"),
    *("score.floor_splits=1", "lr=interval(1e-4,1e-3)"),
)


@dataclass
class Figures:
    """tries: kills, damaged files, command lines, signals, full disks. lost: results that are not
    there in the end. different: results with other bits than undisturbed ones. tracebacks: also
    errors that no command caught. wrong_codes: exit codes that do not say what happened. outside:
    files written, code run or connections made by reading. examples: the first of each."""

    tries: int = 0
    lost: int = 0
    different: int = 0
    tracebacks: int = 0
    wrong_codes: int = 0
    outside: int = 0
    seconds: float = 0.0
    examples: list[str] = field(default_factory=list)

    @property
    def faults(self) -> int:
        return self.lost + self.different + self.tracebacks + self.wrong_codes + self.outside

    def blame(self, kind: str, example: str) -> None:
        setattr(self, kind, getattr(self, kind) + 1)
        if len(self.examples) < 20:
            self.examples.append(f"{kind}: {example[-3000:]}")

    def judge(self, what: str, code: int | None, allowed: tuple[int, ...], said: str) -> None:
        """Count a command that has ended. said: its stderr."""
        self.tries += 1
        if "Traceback (most recent call last)" in said:
            self.blame("tracebacks", f"{what}\n{said}")
        if code not in allowed:
            self.blame("wrong_codes", f"{what}: {code}, not {allowed}\n{said}")


def module_of(command: str) -> str:
    return f"lungan.{command}{'.__main__' if command in ('results', 'utility', 'data') else ''}"


class Command:
    """A command in a process of its own, forked from one that has imported everything."""

    _context = multiprocessing.get_context("forkserver")
    _context.set_forkserver_preload(
        ["lungan.train", "lungan.runs.sweep", "lungan.config.compose", "lungan.runs.search"]
    )

    def __init__(self, arena: Arena, command: str, *arguments: str) -> None:
        self.words = " ".join((command, *arguments))
        self._said = arena.new("said", folder=False)
        values = {"said": str(self._said), "cwd": str(arena.root), "arguments": list(arguments)}
        values["module"] = module_of(command)
        self._process = self._context.Process(target=exec, args=(_COMMAND, values))
        self._process.start()

    def send(self, number: int) -> None:
        """Once the command has begun: before, a signal meets what starts it."""
        while not self._said.exists() and self._process.is_alive():
            time.sleep(0.01)
        if self._process.pid is not None and self._process.is_alive():
            os.kill(self._process.pid, number)

    def wait(self) -> tuple[int | None, str]:
        """Exit code, None where it hung and was killed; and stderr."""
        self._process.join(PATIENCE_SECONDS)
        code = self._process.exitcode
        if code is None:
            self._process.kill()
            self._process.join()
        said = self._said.read_text(errors="replace") if self._said.exists() else ""
        self._said.unlink(missing_ok=True)
        return code, said


_COMMAND = """
import importlib, os, sys
import lungan.runs.jobs
from lungan.cli import INTERRUPTED, run_as_program
lungan.runs.jobs.POLL_SECONDS = 0.2
main = importlib.import_module(module).main
os.chdir(cwd)
os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
try:
    os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    run_as_program(lambda: main(arguments))
except KeyboardInterrupt:  # as lungan's own hook does it where Python runs a command
    sys.exit(INTERRUPTED)
"""


class Arena:
    """A folder to attack in, with results that nobody disturbed, which are made when asked for."""

    def __init__(self, root: Path) -> None:
        self.root = root
        os.environ["LUNGAN_CACHE"] = str(root / "cache")
        os.environ["OMP_NUM_THREADS"] = "1"
        self._number = 0

    @functools.cached_property
    def whole(self) -> Path:
        """The store with a sweep and a search."""
        for command, arguments in (("train", (*RUN, *SWEEP)), ("search", (*RUN, *SEARCH))):
            code, said = Command(self, command, *arguments, f"store={self.root / 'whole'}").wait()
            assert code == 0, said
        return self.root / "whole"

    @functools.cached_property
    def run(self) -> Path:
        """The folder of one run alone."""
        with inside(self.root):
            code, _, said = call("train", [*RUN, "store=single"])
        assert code == 0, said
        return next(path.parent for path in (self.root / "single").glob("*/summary.json"))

    @functools.cached_property
    def found(self) -> dict[str, str]:
        """The bits of each run of ``whole``, by its name."""
        return prints(self.whole)

    def new(self, name: str, folder: bool = True) -> Path:
        self._number += 1
        path = self.root / f"{name}-{self._number}"
        if folder:
            path.mkdir()
        return path

    def compare(self, what: str, store: Path, names: set[str], figures: Figures) -> None:
        """Count runs of these names that the store lacks, or has with other bits."""
        there = prints(store)
        for name in names:
            if name not in there:
                figures.blame("lost", f"{what}: {name}")
            elif there[name] != self.found[name]:
                figures.blame("different", f"{what}: {name}")

    def of_sweep(self) -> set[str]:
        manifest = json.loads((self.whole / "sweeps" / "study.json").read_text())
        return {run["folder"] for run in manifest["runs"]}


def prints(store: Path) -> dict[str, str]:
    """A hash of what each finished run has computed, by its folder's name."""
    found = {}
    for path in store.glob("*/summary.json"):
        summary = json.loads(path.read_text())
        if summary["status"] != "done":
            continue
        rows = [json.loads(line) for line in (path.parent / "metrics.jsonl").open()]
        untimed = [
            {key: row[key] for key in row if key not in ("seconds", "images_per_second")}
            for row in rows
        ]
        scores = summary["scores"] and summary["scores"]["values"]
        content = json.dumps([summary["run_id"], summary["epochs_done"], untimed, scores])
        weights = (path.parent / "generator.safetensors").read_bytes()
        found[path.parent.name] = hashlib.sha256(content.encode() + weights).hexdigest()
    return found


def kill(rng: random.Random, arena: Arena, figures: Figures) -> None:
    """One run, stopped by kill -9, Ctrl-C, SIGTERM or SIGHUP at random moments until it is done."""
    store = arena.new("kill")
    name = next(name for name in sorted(arena.of_sweep()) if "-s0-" in name)
    command = (*RUN, "seed=0", f"store={store}")
    for _ in range(4):
        process = Command(arena, "train", *command)
        number = rng.choice([signal.SIGKILL] * 3 + [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
        time.sleep(rng.uniform(0, 3))
        process.send(number)
        if number == signal.SIGINT and rng.random() < 0.5:
            time.sleep(rng.uniform(0, 0.1))
            process.send(number)
        code, said = process.wait()
        # Until a command looks after them, the other signals end it as they end any program.
        allowed = (0, INTERRUPTED, *(() if number == signal.SIGINT else (-number,)))
        figures.judge(f"{process.words} {number.name}", code, allowed, said)
    code, said = Command(arena, "train", *command).wait()
    figures.judge("the same command after kills", code, (0,), said)
    arena.compare("kill", store, {name}, figures)
    shutil.rmtree(store)


def workers(rng: random.Random, arena: Arena, figures: Figures) -> None:
    """Eight processes on one sweep, some of them killed and begun again."""
    store = arena.new("workers")
    command = (*RUN, *SWEEP, f"store={store}")
    alive = [Command(arena, "train", *command) for _ in range(NUM_WORKERS)]
    for _ in range(NUM_WORKERS):
        time.sleep(rng.uniform(0, 2))
        process = alive.pop(rng.randrange(len(alive)))
        process.send(signal.SIGKILL)
        code, said = process.wait()
        figures.judge("a worker that was killed", code, (0, -signal.SIGKILL), said)
        if rng.random() < 0.7:
            alive.append(Command(arena, "train", *command))
        if not alive:
            break
    for process in [*alive, Command(arena, "train", *command)]:
        code, said = process.wait()
        figures.judge("a worker", code, (0,), said)
    arena.compare("workers", store, arena.of_sweep(), figures)
    ledger = [json.loads(line) for line in (store / "sweeps/study.ledger.jsonl").open()]
    done = [line["run_id"] for line in ledger if line["status"] == "done"]
    if len(set(done)) < len(done):
        figures.blame("different", f"runs were trained twice: {ledger}")
    shutil.rmtree(store)


def full_disk(rng: random.Random, arena: Arena, figures: Figures) -> None:
    """A file system of a few MiB that fills up under a run, a search or a data set of images."""
    disk = arena.new("disk")
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        disk.rmdir()
        return
    try:
        store = disk / "runs"
        run = str(arena.whole / min(arena.of_sweep()))
        many = ("--num-images", "3000", "--out", str(disk / "images"))
        command, arguments = rng.choice(
            [
                ("train", (*RUN, "seed=0", f"store={store}")),
                ("search", (*RUN, *SEARCH, f"store={store}")),
                ("generate", (run, *many)),
                ("generate", (run, *many, "--npz")),
            ]
        )
        filler = disk / "filler"
        free = rng.choice((0, 1, 4, 16, 64, 200, 1000, 2500, 5000)) * 1024
        space = os.statvfs(disk)
        filler.write_bytes(bytes(max(0, space.f_bavail * space.f_frsize - free)))
        code, said = Command(arena, command, *arguments).wait()
        allowed = (0, FAILED, BAD_INPUT) if command == "search" else (0, BAD_INPUT)
        figures.judge(f"{command} with {free} bytes free", code, allowed, said)
        if command == "generate" and code and (disk / "images").exists():
            figures.blame("wrong_codes", "images were left behind")
        filler.unlink()
        code, said = Command(arena, command, *arguments).wait()
        again = (0, BAD_INPUT) if command == "generate" and (disk / "images").exists() else (0,)
        figures.judge(f"{command} once there is space", code, again, said)
        if command != "generate":
            prefix = "-s0-" if command == "train" else ""
            names = {name for name in prints(store) if prefix in name}
            if len(names) < (1 if command == "train" else 2):
                figures.blame("lost", f"{command} with {free} bytes free")
            arena.compare(command, store, names & set(arena.found), figures)
    finally:
        subprocess.run(["umount", str(disk)], check=True)
        disk.rmdir()


@contextlib.contextmanager
def inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def call(command: str, arguments: list[str]) -> tuple[int | None, str, str]:
    """A command in this process: exit code, stdout and stderr, with what it did not catch."""
    out, said = io.StringIO(), io.StringIO()
    code: Any
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(said):
        try:
            code = importlib.import_module(module_of(command)).main(arguments)
        except SystemExit as exit_:
            code = exit_.code
        except Exception:
            code = None
            said.write(traceback.format_exc())
    return code, out.getvalue(), said.getvalue()


def arguments(rng: random.Random, arena: Arena, figures: Figures) -> None:
    """A command line of the table, or one that pairs a key with a value that it cannot have."""
    table = test_arguments
    command, words = rng.choice([*table.CASES, *table.MORE])
    if rng.random() < 0.5:
        key = rng.choice((*table.WHOLE, *table.NUMBERS))
        value = rng.choice((*table.BAD_WHOLE, *table.BAD_NUMBER))
        if key in table.NUMBERS or value not in table.BAD_WHOLE:
            value = rng.choice(table.BAD_NUMBER)
        command, words = "train", [rng.choice(RUN), f"{key}={value}"]
    folder = arena.new("arguments")
    with inside(folder):
        code, _, said = call(command, words)
    what = f"{command} {words}"
    figures.judge(what, code, (BAD_INPUT,), said)
    lines = said.splitlines()
    if code == BAD_INPUT and not (lines and table.ONE_LINE.fullmatch(lines[-1])):
        figures.blame("wrong_codes", f"{what} is not one line: {said}")
    if list(folder.iterdir()):
        figures.blame("outside", f"{what} made {list(folder.iterdir())}")
    shutil.rmtree(folder)


def own_files(rng: random.Random, arena: Arena, figures: Figures) -> None:
    """One of lungan's own files damaged in a copy of the store, and a command that reads it."""
    folder = arena.new("own")
    runs = folder / "runs"
    shutil.copytree(arena.whole, runs)
    names = ("summary.json", "scores.json", "metrics.jsonl", "config.yaml", "checkpoint.pt")
    first = min(path for path in runs.glob("*-s0-*") if path.name in arena.of_sweep())
    files = [first / name for name in names if (first / name).exists()]
    files += [*(runs / "sweeps").glob("*.json*"), *(runs / "sweeps").glob("*.optuna.log")]
    path = rng.choice(files)
    content = path.read_bytes()
    if path.suffix == ".pt":
        content = b'{"a": 1}'
    elif path.suffix != ".json":
        content = content.splitlines()[0] + b"\n"
    if path.suffix == ".yaml":
        content = json.dumps(json.loads((first / "summary.json").read_text())["config"]).encode()
    with contextlib.suppress(ValueError):  # a line that is no JSON, which other damage serves for
        path.write_bytes(test_damaged_files.damaged(content, rng))
    command = rng.choice((*test_damaged_files.COMMANDS, "search"))
    given = {
        **test_damaged_files.COMMANDS,
        "search": (*RUN, *SEARCH, "store={store}"),
        "train": (*RUN, *SWEEP, "store={store}"),
    }[command]
    words = [word.format(store=runs, run=first) for word in given]
    with inside(folder):
        code, _, said = call(command, words)
    figures.judge(f"{command} with {path.name} damaged", code, (0, FAILED, BAD_INPUT), said)
    shutil.rmtree(folder)


def terminal(rng: random.Random, arena: Arena, figures: Figures) -> None:
    """Ctrl-C typed at a terminal, once or twice, or the terminal closed, at a random moment."""
    store = arena.new("terminal")
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "lungan.train", *RUN, "epochs=100000", f"store={store}"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=store,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    os.close(theirs)
    said = os.read(ours, 2**16)  # before Python itself has begun, lungan cannot answer
    listening = threading.Thread(target=lambda: said_more.extend(_read_all(ours)), daemon=True)
    said_more: list[bytes] = []
    what = rng.choice(("Ctrl-C", "Ctrl-C twice", "a terminal that is closed"))
    if what == "a terminal that is closed":
        time.sleep(rng.uniform(0, 5))
        os.close(ours)
    else:
        listening.start()
        time.sleep(rng.uniform(0, 5))
        for _ in what.split():
            os.write(ours, b"\x03")
            time.sleep(rng.uniform(0, 0.2))
    try:
        code: int | None = process.wait(PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        code = None
    if listening.ident is not None:
        listening.join(10)
        os.close(ours)
    said = said + b"".join(said_more)
    figures.judge(what, code, (INTERRUPTED,), said.decode(errors="replace"))
    for path in store.glob("*/summary.json"):
        figures.blame("lost", f"after {what}: {path.read_text()[:500]}")
    shutil.rmtree(store)


def _read_all(terminal_end: int) -> Iterator[bytes]:
    with contextlib.suppress(OSError):  # what Linux says of a terminal that nobody has any more
        while content := os.read(terminal_end, 2**16):
            yield content


class Payload:
    """Becomes a command of the shell's where it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch stolen",)


CODE = "!!python/object/apply:os.system ['touch stolen']"


def hostile(kind: str) -> bytes:
    """A file of the kind whose content wants to be code."""
    file = io.BytesIO()
    if kind == "set.npz":
        np.savez(file, images=np.array([Payload()], dtype=object))
    elif kind in ("checkpoint.pt", "weights.pth"):
        torch.save({"state": Payload(), "run": Payload()}, file)
    elif kind == "config.yaml":
        file.write(f"data: {CODE}\nstore: ${{oc.env:HOME}}\n".encode())
    elif kind == "films.csv":
        file.write(b"image,label\n../../../../etc/passwd,=cmd|' /C touch stolen'!A0\n")
    else:
        file.write(pickle.dumps(Payload()))
    return file.getvalue()


def sound(kind: str, run: Path) -> bytes:
    """A file of the kind as it should be."""
    file = io.BytesIO()
    pixels = np.arange(32 * 32, dtype=np.uint8).reshape(32, 32)
    if kind in ("film.png", "film.jpg", "film.webp", "film.gif", "film.bmp"):
        Image.fromarray(pixels).save(file, {"jpg": "jpeg"}.get(kind[5:], kind[5:]))
    elif kind == "film.tif":
        tifffile.imwrite(file, pixels.astype(np.uint16), compression="zlib")
    elif kind == "film.dcm":
        return dicom(pixels.astype(np.uint16), syntax=DeflatedExplicitVRLittleEndian)
    elif kind == "set.npz":
        np.savez_compressed(file, images=np.stack([pixels] * 9), labels=np.arange(9))
    elif kind == "films.csv":
        file.write(b"image,label\n" + b"".join(b"film.png,%d\n" % n for n in range(9)))
    elif kind == "weights.pth":
        torch.save({"a": torch.zeros(3)}, file)
    else:
        return (run / kind).read_bytes()
    return file.getvalue()


def _read(kind: str, path: Path) -> None:
    if kind.startswith("film."):
        with quiet():
            read_image(path, Wanted(28, 1))
    elif kind == "set.npz":
        read_images(path, 28, 1)
    elif kind == "weights.pth":
        read_tensors(path)
    elif kind == "generator.safetensors":
        load_generator(path)
    elif kind == "config.yaml":
        read_config(path.parent)
    else:
        given = {"films.csv": ("data", [str(path)]), "checkpoint.pt": ("train", [*RUN, "store=."])}
        code, _, said = call(*given[kind])
        if code not in (0, BAD_INPUT) or "Traceback" in said:
            raise AssertionError(f"{code}: {said}")


KINDS = (
    *("film.png", "film.jpg", "film.tif", "film.dcm", "film.webp", "film.gif", "film.bmp"),
    *("set.npz", "films.csv", "config.yaml", "weights.pth", "generator.safetensors"),
    "checkpoint.pt",
)


def files(rng: random.Random, arena: Arena, figures: Figures, kind: str | None = None) -> None:
    """A file that others made, damaged or hostile, is read, and an audit hook watches."""
    kind = kind or rng.choice(KINDS)
    folder = arena.new("files")
    run = folder / arena.run.name if kind == "checkpoint.pt" else folder
    if kind == "checkpoint.pt":
        shutil.copytree(arena.run, run)
        (run / "summary.json").unlink()
    (folder / "film.png").write_bytes(sound("film.png", run))
    content = sound(kind, arena.run)
    if not rng.randrange(4):
        content = hostile(kind)
    else:
        for _ in range(rng.randrange(1, 4)):
            at = rng.randrange(len(content) + 1)
            cut = rng.choice((0, 0, 1, 4, 64, len(content)))
            content = (
                content[:at] + rng.randbytes(rng.choice((0, 1, 2, 4, 8))) + content[at + cut :]
            )
    (run / kind).write_bytes(content)
    error: Exception | None = None
    with inside(folder), watched(arena.root) as seen:
        try:
            _read(kind, run / kind)
        except LunganError:
            pass
        except Exception as error_:
            error = error_
    figures.tries += 1
    if error is not None:
        figures.blame("tracebacks", "".join(traceback.format_exception(error)))
    for each in seen:
        figures.blame("outside", f"{kind}: {each}")
    if list(folder.rglob("stolen")):
        figures.blame("outside", f"{kind} ran code")
    shutil.rmtree(folder)


_RUN_CODE = ("os.exec", "os.fork", "os.posix_spawn", "os.spawn", "os.system", "subprocess.Popen")
_CONNECT = ("socket.connect", "socket.getaddrinfo", "socket.sendto", "urllib.Request")
_CHANGE = ("os.chmod", "os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink")
_OWN_CODE = tuple(map(str, (sys.prefix, sys.base_prefix, ROOT, *filter(None, sys.path))))
_watching: list[tuple[Path, list[str]]] = []


def _hook(event: str, given: tuple[Any, ...]) -> None:
    """Note what reading must not do. An audit hook cannot be taken away, so it asks who watches."""
    if not _watching:
        return
    allowed, seen = _watching[-1]

    def is_outside(path: object) -> bool:
        if not isinstance(path, str | bytes | os.PathLike):
            return False
        text = os.path.abspath(os.fsdecode(path))  # noqa: PTH100  (a link is what is written)
        return text != os.devnull and not text.startswith(str(allowed))

    if event.startswith((*_RUN_CODE, *_CONNECT, "pickle.find_class")):
        seen.append(f"{event} {given}")
    elif event == "open":
        path, mode, flags = given
        by_mode = set(mode or "") & set("wax+")
        by_flags = (flags or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if (by_mode or by_flags) and is_outside(path):
            seen.append(f"{event} {given}")
    elif event.startswith(_CHANGE) and any(map(is_outside, given)):
        seen.append(f"{event} {given}")
    elif event == "exec":
        name = getattr(given[0], "co_filename", "?")
        if not name.startswith(("<frozen", *_OWN_CODE)) and name not in _GENERATED:
            seen.append(f"{event} of {name}")


_GENERATED = ("<string>", "<attrs generated", "<__array_function__ internals>")
"""The names of code that Python's dataclasses and named tuples are made of."""


@contextlib.contextmanager
def watched(allowed: Path) -> Iterator[list[str]]:
    """What the code inside does that reading must not, written down as it happens: running code or
    programs, connecting, and writing outside the folder ``allowed``."""
    if not getattr(watched, "installed", False):
        sys.addaudithook(_hook)
        watched.installed = True  # type: ignore[attr-defined]
    seen: list[str] = []
    _watching.append((allowed.resolve(), seen))
    try:
        yield seen
    finally:
        _watching.pop()


ATTACKS: dict[str, Callable[[random.Random, Arena, Figures], None]] = {
    attack.__name__: attack
    for attack in (kill, workers, full_disk, terminal, own_files, files, arguments)
}


def attack(name: str, number: int, arena: Arena, figures: Figures) -> None:
    """Try ``number`` of an attack; the same number is the same try, but for the machine's pace."""
    began = time.monotonic()
    try:
        ATTACKS[name](random.Random(f"{name} {number}"), arena, figures)
    except Exception:  # a fault of the attack's own must not pass for none of lungan's
        figures.blame("tracebacks", traceback.format_exc())
    figures.seconds += time.monotonic() - began


def as_values(figures: dict[str, Figures]) -> dict[str, Any]:
    return {name: dataclasses.asdict(each) for name, each in figures.items()}
