"""lungan's own files with damage of every kind: a line names the file, and the others go on."""

from __future__ import annotations

import importlib
import json
import os
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lungan.errors import ConfigError, RunFolderError
from lungan.results.read import collect
from lungan.runs import store
from lungan.runs.folder import (
    CHECKPOINT,
    CONFIG,
    METRICS,
    SCORES,
    SUMMARY,
    read_config,
    read_manifest,
    read_metrics,
    read_scores,
    read_summary,
    write_manifest,
)
from lungan.tracking.records import read_records
from tests.attack.conftest import TINY

OWNER = {"host": "elsewhere", "system": "boot", "pid": 7, "started": "1", "token": "0"}
SCORING = {"epoch": 1, "values": {"a.b": 0.5}, "reasons": {}, "encoders": {}, "config": {}}
STRANGE = (None, True, -1, 10**30, 1e308, float("nan"), "", "\ud800", "a\0b", "../x", [], {}, [[]])
OTHERS = (b"", b"\0" * 64, b"\xff\xfe", b"[" * 9999, b"[]", b"null", b"1" * 9999, b'{"a":' * 999)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a sweep of two runs, each done, with scores."""
    root = tmp_path_factory.mktemp("whole")
    arguments = ["--multirun", "--sweep", "study", "epochs=1", "seed=0,1", f"store={root}/runs"]
    assert importlib.import_module("lungan.train").main([*TINY, *arguments]) == 0
    for folder in (root / "runs").glob("*-*"):
        (folder / SCORES).write_text(json.dumps({"id": SCORING}))
    return root / "runs"


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    return [at, *(p for k, v in inner if isinstance(v, dict | list) for p in places(v, (*at, k)))]


def damaged(content: bytes, rng: random.Random) -> bytes:
    """The content with damage of one kind: of its bytes, or of a value that JSON lines hold."""
    kind = rng.randrange(4)
    if kind == 0:
        return rng.choice(OTHERS)
    if kind == 1:
        return content[: rng.randrange(len(content))]
    if kind == 2:
        at = rng.randrange(len(content))
        return content[:at] + rng.randbytes(rng.randrange(1, 9)) + content[at + 3 :]
    value = json.loads(content)
    node = value
    for key in rng.choice(places(value)):
        node = node[key]
    keys = list(node) if isinstance(node, dict) else list(range(len(node)))
    if not keys:
        return b"{}"
    key = rng.choice(keys)
    if rng.random() < 0.3:
        del node[key]
    else:
        node[key] = rng.choice(STRANGE)
    return json.dumps(value).encode()


def read_owner(folder: Path) -> object:
    return store.live_owner(folder)


READERS: dict[str, tuple[Callable[[Path], object], ...]] = {
    SUMMARY: (read_summary,),
    SCORES: (read_scores, read_records),
    METRICS: (read_metrics, read_records),
    CONFIG: (read_config,),
    "claim.json": (read_owner,),
}


@pytest.mark.parametrize("name", READERS)
def test_a_reader_gives_values_that_fit_or_one_line(name: str, whole: Path, tmp_path: Path) -> None:
    source = min(whole.glob("*-*"))
    folder = tmp_path / source.name
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("*.pt", "*.png"))
    (folder / "claim.json").write_text(json.dumps(OWNER))
    path = folder / name
    content = path.read_bytes()
    if name == CONFIG:  # JSON is YAML, and can be damaged value by value
        summary = json.loads((folder / SUMMARY).read_text())
        content = json.dumps(summary["config"]).encode()
    rng = random.Random(name)
    for number in range(150):
        path.write_bytes(damaged(content, rng))
        for read in READERS[name]:
            try:
                read(folder)
            except (RunFolderError, ConfigError) as error:
                said = str(error)
                assert name in said or isinstance(error, ConfigError), (number, said)
                assert "\n" not in said and len(said) < 1000, (number, said)
        if name in (SUMMARY, CONFIG):
            collect(tmp_path)
    path.unlink()
    path.mkdir()
    collect(tmp_path)
    for read in READERS[name]:
        if name == "claim.json":
            assert read(folder) is None
        else:
            with pytest.raises(RunFolderError, match=r"is a folder; .*remove|cannot be read"):
                read(folder)


def test_a_manifest_gives_values_that_fit_or_one_line(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "runs", ignore=shutil.ignore_patterns("*.pt", "*.png"))
    path = tmp_path / "runs" / "sweeps" / "study.json"
    content = path.read_bytes()
    rng = random.Random(3)
    for _ in range(150):
        path.write_bytes(damaged(content, rng))
        for read in (read_manifest, collect):
            try:
                read(tmp_path / "runs", "study")  # type: ignore[operator]
            except RunFolderError as error:
                assert "study" in str(error) and "\n" not in str(error)


@pytest.mark.parametrize(("text", "kept"), [("caf\udce9", "caf\\udce9"), ("a\0b", "a\\0b")])
def test_a_text_that_json_could_not_give_back_is_spelled_out(
    text: str, kept: str, tmp_path: Path
) -> None:
    write_manifest(tmp_path, "s", text, text, [])
    manifest = read_manifest(tmp_path, "s")
    assert (manifest["question"], manifest["command"]) == (kept, kept)


@pytest.mark.parametrize("content", [dict.fromkeys(OWNER), OWNER | {"pid": 10**18}, OWNER])
def test_no_claim_is_waited_for_without_end(content: dict[str, Any], tmp_path: Path) -> None:
    """Of null values, of no process, and of another machine with a time in the future."""
    path = tmp_path / "claim.json"
    path.write_text(json.dumps(content))
    os.utime(path, (time.time() + 1e6,) * 2)
    assert store.live_owner(tmp_path) is None


COMMANDS: dict[str, tuple[str, ...]] = {
    "results": ("{store}",),
    "train": (*TINY, "epochs=2", "store={store}"),
    "score": ("{run}", "--device", "cpu"),
    "generate": ("{run}", "--num-images", "1", "--out", "{store}/../out"),
    "upload": ("{store}", "--sweep", "study", "--offline"),
}


def run_on(command: str, runs: Path) -> int:
    values = {"store": str(runs), "run": str(min(runs.glob("*-s0-*")))}
    arguments = [argument.format(**values) for argument in COMMANDS[command]]
    module = "lungan.results.__main__" if command == "results" else f"lungan.{command}"
    code: int = importlib.import_module(module).main(arguments)
    return code


@pytest.mark.parametrize(
    ("command", "name"),
    [
        *((command, SUMMARY) for command in ("score", "generate", "upload", "train", "results")),
        *((command, CONFIG) for command in ("score", "generate")),
        *((command, METRICS) for command in ("train", "upload")),
    ],
)
def test_a_command_names_the_damaged_file(
    command: str,
    name: str,
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    runs = tmp_path / "runs"
    shutil.copytree(whole, runs)
    for path in runs.glob(f"*-s0-*/{name}"):
        path.write_text('{"status": null}\n')
    code = run_on(command, runs)
    errors = capfd.readouterr().err
    assert code in (0, 2), errors
    assert "Traceback" not in errors
    assert name in errors, errors


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_no_damage_ends_a_command_with_a_traceback(
    command: str,
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    runs = tmp_path / "runs"
    rng = random.Random(command)
    for number in range(40):
        shutil.rmtree(runs, ignore_errors=True)
        shutil.copytree(whole, runs)
        files = [min(runs.glob("*-s0-*")) / name for name in (SUMMARY, SCORES, METRICS, CHECKPOINT)]
        path = rng.choice([*files, runs / "sweeps" / "study.json"])
        content = path.read_bytes()
        text = content if path.suffix == ".json" else content.splitlines()[0]
        path.write_bytes(damaged(text if path.name != CHECKPOINT else b'{"a": 1}', rng))
        code = run_on(command, runs)
        errors = capfd.readouterr().err
        assert code in (0, 1, 2), (number, path, errors)
        assert "Traceback" not in errors, (number, path, errors)
