"""Bad arguments to every command: one line that names the kind of error, code 2, nothing made."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

ONE_LINE = re.compile(r"[A-Z]\w*Error: \S.*")

HUGE = "9" * 400
LONG_PATH = "x" * 300
"""A name longer than the 255 bytes that file systems take."""

# What no whole number of a config may be, and what no positive or finite number may be.
BAD_WHOLE = ("-1", "1.5", "nan", "inf", "1e99", HUGE, "", "null", "true", "abc", "[1]", "{a:1}")
BAD_NUMBER = ("-1", "nan", "inf", f"1{HUGE}", "", "null", "abc", "[1]", "{a:1}", "1e999")

WHOLE = (
    "epochs",
    "batch_size",
    "seed",
    "threads",
    "checkpoint_every_epochs",
    "samples_every_epochs",
    "data.size",
    "data.num_images",
    "data.seed",
    "data.fraction_seed",
    "generator.latent_dim",
    "generator.width",
    "generator.max_width",
    "discriminator.width",
    "discriminator.hidden_width",
    "loss.discriminator_updates",
    "loss.micro_batches",
    "score.num_images",
    "score.batch_size",
    "score.seed",
    "score.floor_splits",
)
NUMBERS = (
    "lr",
    "optimizer.beta1",
    "optimizer.epsilon",
    "optimizer.weight_decay",
    "optimizer.generator_lr",
    "generator.leaky_slope",
    "generator.batch_norm_momentum",
    "generator.ema_half_life_images",
    "discriminator.dropout",
    "loss.r1",
    "loss.gradient_penalty",
    "schedule.warmup_epochs",
    "data.fraction",
)
GRID = [
    *([f"{key}={value}"] for key in WHOLE for value in BAD_WHOLE),
    *([f"{key}={value}"] for key in NUMBERS for value in BAD_NUMBER),
]
QUICK = [case for number, case in enumerate(GRID) if (number + number // len(BAD_WHOLE)) % 3 == 0]
"""A third, for every day; each key and each value is in it."""
TRAIN = [
    # Numbers that a config may hold but no machine can do, and sweeps of nothing.
    ["threads=1000000000000"],
    ["generator.latent_dim=1000000000"],
    ["generator.width=80000000"],
    ["discriminator.width=80000000"],
    ["data.num_images=10000000000000"],
    ["score.seed=18446744073709551616"],
    ["epochs=1000001"],
    ["data.num_test=10000001"],
    ["loss.discriminator_updates=1001"],
    ["discriminator.hidden_width=65537"],
    ["score.floor_splits=1001"],
    ["score.kernel_subsets=1000000000000"],
    ["score.inception_splits=1000000000000"],
    ["store=~nosuchuser/runs"],
    [f"store={LONG_PATH}"],
    ["store=/dev/null/runs"],
    ["data=folder", f"data.path={LONG_PATH}"],
    ["data=folder", "data.path=~nosuchuser"],
    ["data=folder", "data.path=/dev/null"],
    ["data=folder"],
    ["data=npz", "data.path=."],
    ["data=npz", f"data.path={LONG_PATH}"],
    ["--multirun", "seed=range(0,0)"],
    ["--multirun", "optimizer=glob(z*)"],
    ["--multirun", "lr=interval(1e-4,1e-2)"],
    ["--multirun", "--sweep", "../x", "seed=0,1"],
    ["--multirun", "--sweep", "", "seed=0,1"],
    ["--multirun", "+sweeps=../x"],
    ["+sweeps=report"],
    ["experiment=../x"],
    ["optimizer=../adam"],
    ["seed=0,1"],
    ["=1"],
    ["=="],
    [""],
    ["\x00"],
    ["lr=\x00"],
    ["lr=${lr}"],
    ["lr=${oc.env:HOME}"],
    ["lr=${oc.env:NO_SUCH_VARIABLE}"],
    ["store=${store}"],
    ["[" * 2000],
    ["lr=" + "[" * 2000],
    ["generator._target_=os.system"],
    ["+_target_=os.system"],
    ["hydra.run.dir=x"],
    ["--no-such-option"],
    ["--multirun", "--cfg", "job"],
]

OTHERS = {
    "score": [
        [],
        ["no-such-run"],
        [LONG_PATH],
        ["."],
        ["/dev/null"],
        ["--real", "x"],
        ["--fake", "x"],
        ["--real", "x", "--fake", "y"],
        ["--real", "/dev/null", "--fake", "/dev/null"],
        ["--real", LONG_PATH, "--fake", LONG_PATH],
        *(["--real", ".", "--fake", ".", "--num-images", value] for value in BAD_WHOLE),
        *(["--real", ".", "--fake", ".", "--size", value] for value in BAD_WHOLE),
        ["--real", ".", "--fake", ".", "--score", "best"],
        ["--real", ".", "--fake", ".", "--encoders", "vgg"],
        ["--real", ".", "--fake", ".", "--channels", "2"],
        ["--real", ".", "--fake", ".", "--device", "tpu"],
        ["--real", ".", "--fake", ".", "--inception-weights", "no-such-file"],
    ],
    "generate": [
        [],
        ["no-such-run", "--num-images", "1", "--out", "x"],
        [".", "--num-images", "1", "--out", "x"],
        ["/dev/null", "--num-images", "1", "--out", "x"],
        [LONG_PATH, "--num-images", "1", "--out", "x"],
        *([".", "--out", "x", "--num-images", value] for value in (*BAD_WHOLE, "10000000000000")),
        *([".", "--out", "x", "--num-images", "1", "--seed", value] for value in BAD_WHOLE),
        *([".", "--out", "x", "--num-images", "1", "--truncation", v] for v in BAD_NUMBER),
    ],
    "search": [
        [],
        ["--sweep", "s"],
        ["--sweep", "s", "lr=0.1"],
        ["--sweep", "../s", "lr=interval(1e-4,1e-2)"],
        ["--sweep", "s", "lr=interval(1e-2,1e-2)"],
        ["--sweep", "s", "lr=interval(1e-2,1e-4)"],
        ["--sweep", "s", "lr=tag(log,interval(0,1))"],
        ["--sweep", "s", "lr=choice()"],
        ["--sweep", "s", "epochs=range(0,0)"],
        ["--sweep", "s", "no_key=interval(1e-4,1e-2)"],
        *(["--sweep", "s", "--trials", value, "lr=interval(1e-4,1e-2)"] for value in BAD_WHOLE),
        ["--sweep", "s", "--rungs", "a", "lr=interval(1e-4,1e-2)"],
        ["--sweep", "s", "--rungs", "20,10", "lr=interval(1e-4,1e-2)"],
        ["--sweep", "s", "--objective", "beauty", "lr=interval(1e-4,1e-2)"],
    ],
    "results": [
        ["no-such-store"],
        [LONG_PATH],
        ["/dev/null"],
        ["."],
        [".", "--sweep", "none"],
        [".", "--sweep", "../x"],
        [".", "--columns", "no.key"],
    ],
    "data": [
        [],
        ["no-such-folder"],
        ["."],
        ["/dev/null"],
        [LONG_PATH],
        ["~nosuchuser/films"],
        [".", "data.size=1e99"],
        [".", "optimizer=sgd"],
        [".", "data.group=("],
        [".", "data.no_key=1"],
    ],
    "upload": [
        ["no-such-store"],
        ["."],
        ["/dev/null"],
        [LONG_PATH],
        [".", "--sweep", "none"],
        [".", "--sweep", "../x"],
        [".", "no-such-run"],
    ],
    "report": [
        [],
        ["--sweep", "none"],
        ["--sweep", "none", "--store", LONG_PATH],
        ["--sweep", "none", "--store", "/dev/null"],
    ],
    "utility": [
        [],
        ["no-such-run"],
        ["."],
        ["/dev/null"],
        [LONG_PATH],
        *(["x", option, value] for option in ("--seeds", "--updates") for value in BAD_WHOLE),
        *(["x", option, value] for option in ("--ratios", "--peak-lr") for value in BAD_NUMBER),
        ["x", "--arms", "magic"],
        ["x", "--classifier", "magic"],
    ],
}
CASES = [("train", arguments) for arguments in TRAIN + QUICK] + [
    (command, arguments) for command, all_of_them in OTHERS.items() for arguments in all_of_them
]
MORE = [("train", arguments) for arguments in GRID if arguments not in QUICK]


def name(case: tuple[str, list[str]]) -> str:
    return f"{case[0]} {' '.join(case[1])}".encode("unicode_escape").decode()[:60]


def test_a_third_of_the_grid_has_every_key_and_value() -> None:
    third = [text.partition("=")[::2] for (text,) in QUICK]
    assert {key for key, _ in third} == {*WHOLE, *NUMBERS}
    assert {value for _, value in third} == {*BAD_WHOLE, *BAD_NUMBER}


@pytest.mark.parametrize(
    "case", [*CASES, *(pytest.param(case, marks=pytest.mark.slow) for case in MORE)], ids=name
)
def test_bad_arguments_get_one_line_and_exit_code_2(
    case: tuple[str, list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    command, arguments = case
    monkeypatch.chdir(tmp_path)
    module = "lungan.results.__main__" if command == "results" else f"lungan.{command}"
    if command in ("utility", "data"):
        module += ".__main__"
    main = importlib.import_module(module).main
    try:
        code = main(arguments)
    except SystemExit as exit_:
        code = exit_.code
    output, errors = capfd.readouterr()
    lines = errors.splitlines()
    assert code == 2, f"exit code {code}: {errors[-500:]}"
    # The data may have been read, and described, before a store turns out to be no place to write.
    *before, last = lines
    assert not any("Error" in line or "Traceback" in line for line in before), errors[-2000:]
    assert ONE_LINE.fullmatch(last), last[:500]
    assert len(last) < 1000, last[:300]
    assert "object at 0x" not in last
    assert "tags=set()" not in last
    assert output == ""
    assert not list(tmp_path.iterdir())
