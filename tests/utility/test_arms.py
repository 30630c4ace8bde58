"""Arms that need more than a generator's images: its discriminator, or labels of a classifier."""

from __future__ import annotations

import dataclasses
import json
import shutil
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from lungan.classifiers.network import build_classifier
from lungan.classifiers.train import Labelled, Recipe, probabilities_of
from lungan.errors import ConfigError
from lungan.models.build import Classes
from lungan.runs.folder import (
    CHECKPOINT,
    CLASSIFIER,
    GENERATOR,
    SUMMARY,
    UTILITY,
    read_config,
)
from lungan.training.state import build_state
from lungan.utility import batches, runner
from lungan.utility import generators as generators_module
from lungan.utility.__main__ import main
from lungan.utility.arms import ARMS
from lungan.utility.batches import moved
from lungan.utility.generators import read_generators, starting_network
from lungan.utility.images import Scenario
from lungan.utility.manifest import manifest_path, read_manifest
from lungan.utility.trial import Trial

CPU = torch.device("cpu")
TINY = (
    *("data=phantom", "data.num_images=160", "data.num_test=40", "batch_size=8", "epochs=1"),
    *("generator.width=8", "generator.max_width=8", "generator.latent_dim=4", "score=none"),
    *("discriminator.width=8", "precision=fp32", "loss=bce", "augment=none"),
)
DATA = TINY[:3]
QUICK = ("--updates", 2, "--batch-size", 8, "--seeds", 1, "--threads", 1)
HERE = ("--device", "cpu", "--processes", 1)


@pytest.fixture(autouse=True)
def _few_synthetic_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "LEAST_SYNTHETIC", 128)


@pytest.fixture
def run(train: Any) -> Path:
    """A conditional generator of half of the training images."""
    more = ("data.splits=[train]", "data.classes=[]", "data.fraction=0.5")
    folder: Path = train(*more, "generator.conditional=true")
    return folder


def utility(store: Path, *more: object) -> int:
    arguments = [*QUICK, *HERE, "--store", store, "--out", store / "out", *more]
    return main([str(argument) for argument in arguments])


def summaries(store: Path) -> dict[str, dict[str, Any]]:
    """By arm."""
    found = [json.loads(path.read_text()) for path in (store / UTILITY).glob(f"*/{SUMMARY}")]
    return {summary["config"]["arm"]: summary for summary in found}


def refused(capsys: pytest.CaptureFixture[str], store: Path, *given: object) -> str:
    capsys.readouterr()
    assert utility(store, *given) == 2
    assert not (store / UTILITY).exists()
    return capsys.readouterr().err.splitlines()[-1]


def test_what_arms_of_old_are_named_by_stays() -> None:
    """Or their trials would all be trained again."""
    assert ARMS["real_synthetic"].shaping == {
        "name": "real_synthetic",
        "synthetic": "mixed",
        "chosen": "",
        "duration": "",
        "balanced": False,
        "weighted": False,
        "classical": False,
        "mixup": False,
    }
    assert ARMS["discriminator"].shaping["network"] == "discriminator"


def test_classifiers_begin_with_the_discriminator_trained_and_untrained(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    begun: list[dict[str, torch.Tensor]] = []
    ended: list[dict[str, torch.Tensor]] = []
    real_train = runner.train_classifier

    def train_classifier(*given: Any, start: Any, **more: Any) -> Any:
        if start is None:
            return real_train(*given, start=start, **more)
        begun.append({name: value.clone() for name, value in start.state_dict().items()})
        network = real_train(*given, start=start, **more)
        ended.append(network.state_dict())
        return network

    monkeypatch.setattr(runner, "train_classifier", train_classifier)
    arms = ("--arms", "discriminator,discriminator_untrained")
    asked = ("--question", "discriminator:discriminator_untrained,real")
    assert utility(tmp_path, run, *arms, *asked) == 0
    trained, untrained = begun
    saved = torch.load(run / CHECKPOINT, weights_only=True)["state"]["discriminator"]
    state = build_state(read_config(run), 28, 1, CPU, Classes(("normal", "pneumonia"), (0.5, 0.5)))
    first = state.discriminator.state_dict()
    for name in first.keys() - {"classes.weight"}:
        assert torch.equal(trained[f"discriminator.{name}"], saved[name])
        assert torch.equal(untrained[f"discriminator.{name}"], first[name])
    assert torch.equal(trained["classifier.weight"], untrained["classifier.weight"])
    for before, after in zip(begun, ended, strict=True):
        moved = {name for name in before if not torch.equal(before[name], after[name])}
        assert moved == {
            name
            for name in before
            if not name.startswith(("discriminator.linear.", "discriminator.classes."))
        }
    found = summaries(tmp_path)
    networks = {arm: summary["config"].get("network") for arm, summary in found.items()}
    assert networks["real"] is None
    assert networks["discriminator"] == networks["discriminator_untrained"]
    assert found["discriminator"]["config"]["gan"]["runs"] == [run.name]
    assert "gan" not in found["discriminator_untrained"]["config"]
    answer = "Real only, pretrained discriminator is not shown to be better than every control"
    assert answer in capsys.readouterr().out


def test_an_untrained_discriminator_is_a_control_of_every_generator_with_such_a_network(
    run: Path,
) -> None:
    generators = read_generators([run], None)
    ((one,),) = generators.sets.values()
    recipe = Recipe(updates=2, batch_size=8)
    settings = runner.Settings(generators.real, recipe, 1, CPU, "fp32")
    of_study = runner.TrialRunner(settings)
    wider = dataclasses.replace(one.discriminator, width=16)  # type: ignore[call-arg]

    def ids(arm: str) -> list[str]:
        sets = (one, dataclasses.replace(one, weights={"normal": "other"}))
        sets = (*sets, dataclasses.replace(one, discriminator=wider))
        return [Trial(ARMS[arm], each, None, 0, of_study).identity.run for each in sets]

    first, other_weights, other_network = ids("discriminator_untrained")
    assert first == other_weights != other_network
    assert len(set(ids("discriminator"))) == 3
    assert len(set(ids("real"))) == 1


def test_discriminators_that_no_classifier_can_begin_with(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arms = ("--arms", "discriminator")
    generators = read_generators([run], None)
    ((one,),) = generators.sets.values()
    pair = dataclasses.replace(one, folders=one.folders | {"normal": "other"})
    with pytest.raises(ConfigError, match=f"other and {run.name} have one each; give a run with"):
        starting_network(pair, generators.real, 0, trained=True)
    gone = tmp_path / run.name
    shutil.copytree(run, gone, ignore=shutil.ignore_patterns(CHECKPOINT))
    said = refused(capsys, tmp_path, gone, *arms)
    assert f"needs {gone / CHECKPOINT}, which cannot be read (FileNotFoundError)" in said
    said = refused(capsys, tmp_path, *DATA, "--one-a-class", *arms)
    assert "--one-a-class trains a discriminator for each class" in said
    monkeypatch.setattr(generators_module, "build_discriminator", lambda *_: torch.nn.Linear(1, 1))
    for given in ([run], DATA):
        said = refused(capsys, tmp_path, *given, *arms)
        assert "discriminator=dcgan cannot be trained as a classifier" in said


def test_labels_of_the_real_only_classifier_for_synthetic_moved_and_unlabelled_images(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside: dict[str, Labelled] = {}
    real_plan = runner.plan_phases

    def plan(arm: Any, real: Labelled, synthetic: Labelled | None, *more: Any) -> Any:
        if synthetic is not None:
            beside[arm.name] = synthetic
        return real_plan(arm, real, synthetic, *more)

    monkeypatch.setattr(runner, "plan_phases", plan)
    arms = ("real_synthetic", "real_soft", "real_classical_soft", "real_pseudo")
    assert utility(tmp_path, run, "--arms", ",".join(arms)) == 0
    (weights,) = tmp_path.rglob(CLASSIFIER)
    teacher = build_classifier("small", 28, 1, 2, 0)
    teacher.load_state_dict(safetensors.torch.load_file(weights))

    soft, moves, unlabelled = (beside[arm] for arm in arms[1:])
    assert (soft.images == beside["real_synthetic"].images).all()
    for images in (soft, moves):
        believed = probabilities_of(teacher, images.images, CPU)
        assert images.soft == pytest.approx(believed, abs=1e-6)
    real = read_generators([run], None).real
    drawn = real.draw("train", Scenario(0.5), 0)
    assert len(moves) == pytest.approx(batches.LEAST_SYNTHETIC, abs=1)
    known = {image.tobytes() for image in drawn.images}
    assert not known & {image.tobytes() for image in moves.images}
    whole = real.draw("train", Scenario(1.0), 0).images
    left_out = {image.tobytes() for image in whole} - known
    assert {image.tobytes() for image in unlabelled.images} == left_out
    believed = probabilities_of(teacher, unlabelled.images, CPU)
    assert unlabelled.soft is None and (unlabelled.labels == believed.argmax(axis=1)).all()

    found = {arm: summary["config"] for arm, summary in summaries(tmp_path).items()}
    assert {arm for arm in found if "gan" in found[arm]} == {"real_synthetic", "real_soft"}
    often = {config["shown"]["all"] for arm, config in found.items() if arm != "real"}
    assert often == {found["real"]["shown"]["all"] / 2}


def test_moved_images_are_the_real_ones_of_each_class_in_turn() -> None:
    images = np.zeros((3, 1, 28, 28), dtype=np.uint8) + np.array([0, 60, 250])[:, None, None, None]
    real = Labelled(images.astype(np.uint8), np.array([0, 0, 1]))
    found = moved(real, [4, 2], 0)
    assert found.labels.tolist() == [0, 0, 0, 0, 1, 1]
    near = found.images.mean(axis=(1, 2, 3)) - np.array([0, 60, 0, 60, 250, 250])
    assert np.abs(near).max() < 30
    assert len({image.tobytes() for image in found.images[1::2]}) == 3
    assert (moved(real, [4, 2], 0).images == found.images).all()


@pytest.mark.parametrize("more", [(), ("--fractions", "0.5,1"), ("--imbalance", "normal=0.2")])
def test_without_a_fraction_no_image_is_unlabelled(
    more: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(capsys, tmp_path, *DATA, "--arms", "real_pseudo", *more)
    assert "real_pseudo takes the training images that a fraction leaves out" in said


def test_a_generator_without_classes_of_all_training_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Is trained beside a fraction, labelled by the classifier, and needed no more when all is
    done."""
    monkeypatch.setenv("LUNGAN_CACHE", str(tmp_path / "cache"))
    beside: list[Labelled] = []
    real_plan = runner.plan_phases

    def plan(arm: Any, real: Labelled, synthetic: Labelled | None, *more: Any) -> Any:
        beside.extend([] if synthetic is None else [synthetic])
        return real_plan(arm, real, synthetic, *more)

    monkeypatch.setattr(runner, "plan_phases", plan)
    study = (*TINY, "--fractions", "0.5", "--arms", "real_unlabelled")
    assert utility(tmp_path, *study) == 0
    (folder,) = [path.parent for path in tmp_path.glob(f"*/{SUMMARY}")]
    config = read_config(folder)
    assert (config.generator.conditional, config.data.classes) == (False, [])
    assert (config.data.splits, config.data.fraction) == (["train"], 1.0)
    (weights,) = tmp_path.rglob(CLASSIFIER)
    teacher = build_classifier("small", 28, 1, 2, 0)
    teacher.load_state_dict(safetensors.torch.load_file(weights))
    believed = probabilities_of(teacher, beside[0].images, CPU)
    assert (beside[0].labels == believed.argmax(axis=1)).all()
    assert len(beside[0]) == pytest.approx(batches.LEAST_SYNTHETIC, abs=1)
    config = summaries(tmp_path)["real_unlabelled"]["config"]
    assert config["gan"]["runs"] == [folder.name]
    assert (config["data"]["fraction"], config["data"]["num_real_images"]) == (0.5, 72)
    manifest = read_manifest(manifest_path(tmp_path, "study"))
    assert manifest.weights == {folder.name: sha256((folder / GENERATOR).read_bytes()).hexdigest()}
    shutil.rmtree(folder)
    capsys.readouterr()
    assert utility(tmp_path, *study) == 0
    assert "2 trials, 2 of them done" in capsys.readouterr().out


def test_only_the_arm_of_unlabelled_images_takes_a_generator_that_saw_them(
    train: Any, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = train("data.splits=[train]", "data.classes=[]", "generator.conditional=false")
    arm = ("--arms", "real_unlabelled")
    said = refused(capsys, tmp_path, run, whole)
    assert f"{whole.name} makes images of several classes without labels" in said
    assert "real_unlabelled needs a run with" in refused(capsys, tmp_path, run, *arm)
    assert "needs runs that make each class too" in refused(capsys, tmp_path, whole, *arm)
    leaky = train("data.splits=[train,val]", "data.classes=[]", "generator.conditional=false")
    said = refused(capsys, tmp_path, run, leaky, *arm)
    assert "was trained on 16 of the 16 images of val, which classifiers are selected on" in said
    assert utility(tmp_path, run, whole, *arm, "--dry-run") == 0
    generators = read_generators([run, whole], None, unlabelled=True)
    ((own,),) = generators.sets.values()
    other = generators.of(ARMS["real_unlabelled"], own.scenario, 0)
    assert (other.runs, own.runs) == ([whole.name], [run.name])
    assert (other.scenario, other.fraction_seed) == (own.scenario, own.fraction_seed)
