"""lungan from Python: what the commands do, as functions that print nothing."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import lungan
from lungan import api
from lungan.data.build import read_images
from lungan.scores import domain
from lungan.train import main

TINY = [
    "generator.width=8",
    "discriminator.width=8",
    "data.num_images=64",
    "data.num_test=8",
    "batch_size=32",
    "score=none",
    "threads=1",
    "precision=fp32",
    "epochs=1",
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> lungan.Run:
    folder = tmp_path_factory.mktemp("api")
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LUNGAN_CACHE", str(folder / "cache"))
        run = lungan.train([*TINY, f"store={folder / 'store'}"])
    torch.set_num_threads(threads)
    return run


def test_a_run_is_what_the_command_makes(
    made: lungan.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LUNGAN_CACHE", str(tmp_path / "cache"))
    assert (made.status, made.reused) == ("done", False)
    assert main([*TINY, f"store={tmp_path}"]) == 0
    (other,) = tmp_path.glob("*ep*")
    name = "generator.safetensors"
    assert other.name == made.folder.name
    assert (other / name).read_bytes() == (made.folder / name).read_bytes()
    again = lungan.train([*TINY, f"store={made.folder.parent}"])
    assert again.reused and again.folder == made.folder


class Thing:
    """Of no type that any argument takes."""


WRONG = (None, 3, [], "", Thing())
BLACK = np.zeros((9, 28, 28), np.uint8)

ARGUMENTS: dict[str, tuple[dict[str, Any], dict[str, tuple[str, tuple[int, ...]]]]] = {
    "train": (
        {"config": []},
        {
            "config": ("overrides", (2,)),
            "start": ("start", (0,)),
            "config_dirs": ("config_dirs", (2,)),
        },
    ),
    "sweep": (
        {"overrides": ["lr=0.1,0.2"]},
        {
            "overrides": ("overrides", (2,)),
            "name": ("the sweep's name", (0,)),
            "question": ("question", (3,)),
            "launcher": ("launcher", ()),
            "start": ("start", (0,)),
            "config_dirs": ("config_dirs", (2,)),
            "n_jobs": ("n_jobs", (1,)),
        },
    ),
    "open": ({}, {"run": ("run", ())}),
    "load": ({"store": "."}, {"store": ("store", ()), "sweep": ("no sweep named", (0,))}),
    "generate": (
        {"run": "nowhere", "num_images": 2},
        {
            "run": ("run", ()),
            "num_images": ("num_images", (1,)),
            "seed": ("seed", (1,)),
            "device": ("device", ()),
        },
    ),
    "score": (
        {"real": BLACK, "fake": BLACK},
        {
            "real": ("real", ()),
            "fake": ("fake", ()),
            "score": ("score", (0,)),
            "splits": ("splits", (0, 2)),
            "classes": ("classes", (0, 2)),
            "size": ("size", (0,)),
            "channels": ("channels", (0, 1)),
            "on_bad_image": ("on_bad_image", ()),
            "pairs": ("pairs", (0,)),
            "device": ("device", ()),
            "encoders": (r"score(\.encoders|=standard has no encoders)", ()),
            "num_images": (r"score\.num_images", ()),
        },
    ),
}
"""By function: its right arguments, and of each argument what an error's message begins with, and
which of ``WRONG`` it takes."""


@pytest.mark.parametrize("function", ARGUMENTS)
def test_an_argument_of_a_wrong_type_is_named_in_a_line(
    function: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    right, named = ARGUMENTS[function]
    parameters = inspect.signature(getattr(api, function)).parameters.values()
    assert {each.name for each in parameters if each.kind is not each.VAR_KEYWORD} <= set(named)
    for argument, (begins, taken) in named.items():
        for number, wrong in enumerate(WRONG):
            if number in taken:
                continue
            with pytest.raises(lungan.LunganError) as caught:
                getattr(lungan, function)(**{**right, argument: wrong})
            assert re.match(f"{begins}.* [a-z].*", str(caught.value)), (argument, wrong, caught)
            assert " at 0x" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"config_dirs": [None]},
            r"config_dirs in Python\) must be text or a pathlib\.Path, got null",
        ),
        (
            {"config_dirs": ["nowhere"]},
            r"config_dirs in Python\) must be a folder, .*/nowhere is none",
        ),
        ({"start": "~nobody-here/run"}, "start ~nobody-here/run names a home folder that does not"),
        ({"config": [1]}, r"overrides must be a list of text, .*, got \[1\]"),
    ],
)
def test_what_is_wrong_inside_of_an_argument_is_named(
    arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(lungan.LunganError, match=message):
        lungan.train(**arguments)


def test_a_whole_config_takes_nothing_beside_it(made: lungan.Run) -> None:
    for beside in ({"start": made.folder}, {"config_dirs": ["conf"]}):
        with pytest.raises(lungan.LunganError, match="start and config_dirs go with overrides"):
            lungan.train(made.config, **beside)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["a/b", ".hidden", "x" * 101])
def test_a_sweep_is_named_as_a_file_can_be(name: str) -> None:
    with pytest.raises(lungan.LunganError, match="the sweep's name must be letters, digits"):
        lungan.sweep(["lr=0.1,0.2"], name=name)


@pytest.mark.parametrize(
    "text", ["question: 3", "overrides: [1]", "runs: 3", "runs: [3]", "run: []"]
)
def test_a_sweeps_file_of_another_form_is_refused(text: str, tmp_path: Path) -> None:
    file = tmp_path / "seeds.yaml"
    file.write_text(text)
    with pytest.raises(lungan.LunganError, match=r"seeds\.yaml .* a sweep has overrides: "):
        lungan.sweep([f"+sweeps={file}"])


def test_several_values_are_a_sweep() -> None:
    with pytest.raises(lungan.LunganError, match=r"is a sweep: use lungan\.sweep, or"):
        lungan.train(["lr=0.1,0.2"])


def test_a_run_is_shown_in_a_line(made: lungan.Run) -> None:
    assert "config" not in repr(made) and made.folder.name in repr(made)


def test_a_run_starts_from_a_saved_config_or_is_given_as_one(
    made: lungan.Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LUNGAN_CACHE", str(tmp_path))
    assert lungan.train(made.config).folder == made.folder
    longer = lungan.train(["epochs=2"], start=made.folder)
    assert longer.summary["continued_from"] == made.folder.name
    assert main(["--from", str(made.folder / "config.yaml"), "epochs=2"]) == 0
    assert lungan.train(["epochs=2"], start=made.folder).reused


def test_a_saved_config_that_is_none_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--from", str(tmp_path / "config.yaml")]) == 2
    said = capsys.readouterr().err
    assert "config.yaml does not exist; give a run's folder" in said and len(said.splitlines()) == 1


def test_an_opened_run_has_its_parts(made: lungan.Run) -> None:
    run = lungan.open(made.folder)
    assert run.config.epochs == 1 and run.config.generator.width == 8
    assert list(run.metrics.index) == [1] and run.metrics["loss_generator"].dtype == float
    assert run.scores == {}
    images = lungan.generate(run, 5, seed=3)
    assert images.shape == (5, 1, 28, 28) and images.dtype == np.uint8
    assert (lungan.generate(run.folder / "generator.safetensors", 3, seed=3) == images[:3]).all()
    assert not run.generator("cpu").training


def test_images_that_do_not_fit_into_memory_are_not_begun(
    made: lungan.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lungan.memory.available", lambda: 2**20)
    assert len(lungan.generate(made, 9)) == 9
    with pytest.raises(lungan.LunganError, match="num_images=10000 must fit into the memory"):
        lungan.generate(made, 10_000)


def test_a_sweep_gives_its_runs_and_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LUNGAN_CACHE", str(tmp_path / "cache"))
    overrides = [*TINY, "lr=0.001,1e30", "optimizer=sgd", f"store={tmp_path}"]
    done = lungan.sweep(overrides, name="t", question="Why?")
    assert [run.status for run in done.runs] == ["done", "diverged"]
    table = done.table()
    assert isinstance(table, pd.DataFrame)
    assert list(table["lr"]) == [0.001, 1e30] and list(table["status"]) == ["done", "diverged"]
    assert len(lungan.load(tmp_path)) == 2
    assert (done.folder / "report.html").is_file()
    assert capfd.readouterr() == ("", "")


def test_a_sweep_takes_a_launcher_and_its_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LUNGAN_CACHE", str(tmp_path / "cache"))
    own = tmp_path / "seeds.yaml"
    own.write_text("question: Does the seed matter?\noverrides: {seed: '1,2'}\n")
    overrides = [*TINY, f"+sweeps={own}", f"store={tmp_path}"]
    done = lungan.sweep(overrides, n_jobs=2)
    assert done.name == "seeds" and [run.config.seed for run in done.runs] == [1, 2]
    assert [run.summary["status"] for run in done.runs] == ["done", "done"]
    assert list((tmp_path / "sweeps").glob("*/launcher/*/jobs.json"))
    with pytest.raises(lungan.LunganError, match="The keys of launcher=local are n_jobs"):
        lungan.sweep(overrides, n_job=2)


def test_images_are_scored_against_real_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = domain.Recipe(min_updates=30, max_updates=30, batch_size=16)
    monkeypatch.setattr(domain.load_encoder, "__defaults__", (quick,))
    monkeypatch.setenv("LUNGAN_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    grid = np.arange(28) / rng.uniform(2, 6, (120, 1)) + rng.uniform(0, 6, (120, 1))
    waves = 128 + 60 * np.sin(grid)[:, None] + 40 * np.sin(2 * grid)[:, :, None]
    real, fake = waves[:80].astype(np.uint8), waves[80:].astype(np.uint8)
    np.savez(tmp_path / "real.npz", images=real)
    np.savez(tmp_path / "fake.npz", images=fake)
    ways = [
        (tmp_path / "real.npz", str(tmp_path / "fake.npz")),
        (real, fake[..., None]),  # as numpy and PIL have them
        (torch.from_numpy(real)[:, None], torch.from_numpy(fake)[:, None]),
        (read_images(tmp_path / "real.npz"), fake[:, None]),
    ]
    results = [
        lungan.score(*way, score="fast", encoders=["domain"], kernel_subset_size=10) for way in ways
    ]
    assert results[0]["values"]["domain.frechet_distance"] >= 0
    assert "domain.frechet_distance.floor" in results[0]["values"]
    assert all(result["values"] == results[0]["values"] for result in results)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("lungan.train(['lrr=1'])", "lrr is not a key"),
        ("lungan.train(['lr=-1'])", "lr must be greater than 0, got -1"),
        ("lungan.sweep(['lr=1,2'], launcher='jobli')", "^launcher must be one of"),
        ("lungan.train(['data=npz', 'data.path=x\\udce9'])", "data.path must be text that UTF-8"),
        ("lungan.train(3)", "overrides must be a list of text"),
        ("lungan.train([], config_dirs='conf')", r"config_dirs must be a list .* \[\"conf\"\]"),
        ("lungan.score('/x', '/x', encoderz=['domain'])", "score.encoderz is not a key; did you"),
        ("lungan.score('/x', '/x', device=3)", "device must be auto, cpu, cuda or cuda:<index>"),
        ("lungan.open('/nowhere')", "/nowhere is not a run's folder"),
        ("lungan.load('/nowhere')", "/nowhere"),
        ("lungan.generate('/nowhere', 0)", "num_images must be from 1 to 10000000, got 0"),
        ("lungan.generate('/nowhere', 2.5)", "num_images must be a whole number, got 2.5"),
        ("lungan.generate('/nowhere', np.int64(2), seed=-1)", "seed must be from 0 to .*, got -1"),
        ("lungan.generate('/nowhere', np.array([1, 2]))", r"must be a whole number, got \[1,2\]"),
        ("lungan.sweep(['lr=1,2'], n_jobs=np.int64(0))", "n_jobs must be at least 1, or -1 for"),
        (
            "lungan.score('/x', '/x', num_images=np.int64(1))",
            "score.num_images must be 0, or at least",
        ),
        ("lungan.open('a\\0b')", "run a.*b cannot be looked at: embedded null byte; give another"),
        (
            "lungan.open('x' * 5000)",
            r"run x+\.\.\. .* cannot be looked at: File name too long; give",
        ),
        ("lungan.score('/nowhere', '/x', size=0)", "size must be from 16 to 512, or null, got 0"),
        ("lungan.score('/nowhere', '/x', channels=2)", "channels must be one of 1, 3, or null"),
        ("lungan.score('/nowhere', '/x', splits='train')", "splits must be a list of names"),
        ("lungan.score('/nowhere', '/x', on_bad_image='x')", "on_bad_image must be one of error"),
        ("lungan.score('/nowhere', '/nowhere', score='fst')", "score must be one of"),
        ("lungan.score(np.zeros((9, 8, 8)), '/x')", "real: images must be uint8 from 0 to 255"),
        ("lungan.score(np.zeros((9, 8), 'uint8'), '/x')", r"real: images must be \(N, H, W\)"),
        ("lungan.score(np.zeros((9, 8, 8), 'uint8'), [1])", "fake: images must be uint8"),
    ],
)
def test_what_a_user_can_mend_is_a_lungan_error(call: str, message: str) -> None:
    with pytest.raises(lungan.LunganError, match=message):
        eval(call)


def test_images_that_no_encoder_can_score_have_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    unfit: tuple[list[Any], dict[str, str]] = ([], {"domain": "it is at chance"})
    monkeypatch.setattr("lungan.scores.encoders.build_all", lambda *_: unfit)
    with pytest.raises(lungan.LunganError, match=r"\[domain\] can be had: domain: it is at chance"):
        lungan.score(BLACK, BLACK, encoders=["domain"])


def test_importing_lungan_loads_nothing_and_the_api_is_listed() -> None:
    code = """
import sys, lungan
assert "torch" not in sys.modules and "hydra" not in sys.modules
assert {"train", "sweep", "load", "open", "score", "generate"} <= set(dir(lungan))
import logging
assert isinstance(logging.getLogger("lungan").handlers[0], logging.NullHandler)
import lungan.train, lungan.score, lungan.generate
assert all(map(callable, (lungan.train, lungan.score, lungan.generate)))
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=100)
    with pytest.raises(AttributeError, match="has no attribute 'trian'"):
        lungan.trian  # noqa: B018


def test_what_is_offered_is_there() -> None:
    for name in lungan.__all__:
        assert getattr(lungan, name) is not None
    source = ast.parse((Path(lungan.__file__).parent / "api.py").read_text())
    functions = [node for node in source.body if isinstance(node, ast.FunctionDef)]
    assert {each.name for each in functions if not each.name.startswith("_")} <= set(lungan.__all__)
    assert all(ast.get_docstring(each) for each in functions if not each.name.startswith("_"))
