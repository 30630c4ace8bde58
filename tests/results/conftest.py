"""Synthetic stores: run folders and sweep manifests as runs leave them, with known scores."""

from __future__ import annotations

import hashlib
import json
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from lungan.results.report import Results, write_results

REFERENCE_HASH = hashlib.sha256(b"reference").hexdigest()


def nested_config(optimizer: str = "adam", epochs: int = 50, seed: int = 0) -> dict[str, Any]:
    own = {"adam": {"beta1": 0.9, "beta2": 0.999}, "rmsprop": {"decay": 0.9, "momentum": 0.0}}
    return {
        "data": {"name": "phantom", "size": 28, "splits": ["train", "val"], "classes": []},
        "generator": {"name": "dcgan", "latent_dim": 100, "width": 64},
        "optimizer": {"name": optimizer, "generator_lr": 0.001, **own.get(optimizer, {})},
        "score": {"name": "standard", "nearest_k": 5},
        "epochs": epochs,
        "batch_size": 256,
        "lr": 0.001,
        "seed": seed,
        "precision": "auto",
        "store": "runs",
    }


def run_hash(config: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()


def scoring(values: dict[str, float | None], num_images: int = 624) -> dict[str, Any]:
    """A result object as scores.json has them."""
    return {
        "scoring_id": "5c" * 32,
        "epoch": 50,
        "config": {"name": "standard", "nearest_k": 5, "kernel_subsets": 10},
        "num_images": num_images,
        "reference": {"splits": ["test"], "classes": [], "content_hash": REFERENCE_HASH},
        "encoders": {"domain": {"weights_hash": "d0" * 32, "feature_dim": 64, "notes": []}},
        "values": values,
        "reasons": {"inception": "no weights"},
        "notes": [],
        "seconds": 3.5,
    }


def scores(distance: float, rng: random.Random) -> dict[str, float | None]:
    precision = min(1.0, max(0.0, rng.gauss(0.6, 0.05)))
    return {
        "domain.frechet_distance": distance,
        "domain.frechet_distance.floor": 2.0,
        "domain.frechet_distance.floor_std": 0.2,
        "domain.precision": precision,
        "domain.precision.floor": 0.85,
        "domain.precision.floor_std": 0.02,
        "domain.inception_score": rng.gauss(1.30, 0.02),
        "domain.inception_score.std": 0.01,
        "domain.inception_score.real": 1.62,
        "inception.inception_score": None,
    }


@dataclass
class StoreMaker:
    """Writes run folders into ``path`` and remembers them for a manifest."""

    config = staticmethod(nested_config)
    run_hash = staticmethod(run_hash)

    path: Path
    entries: list[dict[str, Any]] = field(default_factory=list)

    def run(
        self,
        settings: dict[str, Any] | None = None,
        /,
        *,
        status: str = "done",
        reason: str | None = None,
        values: dict[str, float | None] | None = None,
        num_images: int = 624,
        name: str | None = None,
        pictures: bool = False,
        **changes: Any,
    ) -> Path:
        """One run folder; status ``unfinished`` leaves out the summary. changes: of the summary."""
        settings = settings or nested_config()
        run_id = run_hash(settings)
        slug = f"{settings['optimizer']['name']}-{settings['epochs']}ep-s{settings['seed']}"
        folder = self.path / (name or f"{slug}-{run_id[:8]}")
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
        epochs_done = settings["epochs"] if status == "done" else settings["epochs"] // 3
        rng = random.Random(f"{slug}{run_id}")
        (folder / "metrics.jsonl").write_text(
            "".join(metrics_line(epoch, rng) for epoch in range(1, epochs_done + 1))
        )
        if pictures:
            write_grid(folder / "samples" / f"epoch_{epochs_done:04d}.png", settings)
        summary = {
            "status": status,
            "reason": reason,
            "run_id": run_id,
            "trajectory_id": "7a" * 32,
            "name": folder.name,
            "epochs": settings["epochs"],
            "epochs_done": epochs_done,
            "continued_from": None,
            "sweeps": ["study"],
            "versions": {"lungan": "0.1.0", "python": "3.11.7", "torch": "2.13.0"},
            "git_commit": "c0ffee0",
            "device": "cpu",
            "machine": "a machine",
            "precision": "bf16",
            "num_train_images": 3883,
            "data_hash": "da" * 32,
            "num_parameters": {"generator": 2330944, "discriminator": 212865},
            "seconds": {"data": 0.5, "training": 60.0, "scoring": 3.5, "total": 64.0},
            "scores": None if values is None else scoring(values, num_images),
            "config": settings,
        }
        if status != "unfinished":
            (folder / "summary.json").write_text(json.dumps({**summary, **changes}))
        self.entries.append(self.entry(settings, folder.name))
        return folder

    def entry(self, config: dict[str, Any], folder: str | None) -> dict[str, Any]:
        """A manifest's line for a run of the 2 x 2 x seeds study."""
        overrides = {"optimizer": config["optimizer"]["name"], "seed": config["seed"]}
        return {
            "run_id": run_hash(config),
            "trajectory_id": "7a" * 32,
            "folder": folder,
            "overrides": {**overrides, "epochs": config["epochs"]},
            "epochs": config["epochs"],
        }

    def manifest(self, name: str = "study", **changes: Any) -> Path:
        path = self.path / "sweeps" / f"{name}.json"
        path.parent.mkdir(exist_ok=True)
        manifest = {
            "name": name,
            "question": "Which optimizer makes better radiographs, and do more epochs help?",
            "command": "python -m lungan.train --multirun optimizer=adam,rmsprop epochs=50,100 "
            "'seed=range(5)'",
            "created": "2026-01-02T03:04:05+00:00",
            "runs": self.entries,
        }
        path.write_text(json.dumps({**manifest, **changes}))
        return path

    def ledger(self, lines: list[dict[str, Any] | str], name: str = "study") -> None:
        texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        (self.path / "sweeps" / f"{name}.ledger.jsonl").write_text("\n".join(texts) + "\n")


def metrics_line(epoch: int, rng: random.Random) -> str:
    generator = 0.7 + 1.5 * (1 - 0.97**epoch) + rng.gauss(0, 0.08)
    discriminator = 1.3 - 0.5 * (1 - 0.97**epoch) + rng.gauss(0, 0.05)
    record = {"epoch": epoch, "loss_generator": generator, "loss_discriminator": discriminator}
    return json.dumps(record) + "\n"


def write_grid(path: Path, config: dict[str, Any]) -> None:
    """A 4 x 8 grid of soft blobs, 28 pixels each with gaps of 2."""
    rng = np.random.default_rng([config["seed"], config["epochs"]])
    axis = np.linspace(-1, 1, 28)
    sheet = np.full((4 * 30 - 2, 8 * 30 - 2), 255, dtype=np.uint8)
    for index in range(32):
        x, y, width = rng.uniform(-0.4, 0.4, 3)
        blob = np.exp(-((axis[None] - x) ** 2 + (axis[:, None] - y) ** 2) / (0.3 + width**2))
        top, left = index // 8 * 30, index % 8 * 30
        noise = rng.normal(0, 6, (28, 28))
        sheet[top : top + 28, left : left + 28] = np.clip(220 * blob + noise, 0, 255)
    path.parent.mkdir()
    Image.fromarray(sheet).save(path)


@pytest.fixture
def store(tmp_path: Path) -> StoreMaker:
    path = tmp_path / "runs"
    path.mkdir()
    return StoreMaker(path)


@pytest.fixture(scope="session")
def written_study(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """The results of the study, written once for the tests that only read them."""
    folder = tmp_path_factory.mktemp("written")
    (folder / "runs").mkdir()
    store = make_study(StoreMaker(folder / "runs"))
    return write_results(store.path, "study", folder / "out")


@pytest.fixture
def study(store: StoreMaker) -> StoreMaker:
    return make_study(store)


def make_study(store: StoreMaker) -> StoreMaker:
    """2 optimizers x 2 epochs x 5 seeds: adam well below rmsprop in Fréchet distance; one run
    diverged, one failed, one unfinished, one missing and one corrupt."""
    rng = random.Random(0)
    means = {("adam", 50): 20.0, ("adam", 100): 19.5, ("rmsprop", 50): 32.0, ("rmsprop", 100): 31.0}
    for (optimizer, epochs), mean in means.items():
        for seed in range(5):
            config = nested_config(optimizer, epochs, seed)
            values = scores(rng.gauss(mean, 1.5), rng)
            match optimizer, epochs, seed:
                case "rmsprop", 50, 3:
                    reason = "loss_generator is not finite at epoch 17"
                    store.run(config, status="diverged", reason=reason, pictures=True)
                case "rmsprop", 100, 0:
                    store.run(config, status="failed", reason="OSError: no space left on device")
                case "rmsprop", 100, 1:
                    store.run(config, status="unfinished")
                case "rmsprop", 100, 2:
                    store.entries.append(store.entry(config, None))
                case "adam", 100, 4:
                    folder = store.run(config, values=values, pictures=True)
                    (folder / "summary.json").write_text('{"status": "done", "run_')
                case _:
                    store.run(config, values=values, pictures=True)
    store.manifest()
    store.ledger(
        [
            {"run_id": store.entries[16]["run_id"], "status": "failed", "reason": "killed"},
            {"run_id": store.entries[17]["run_id"], "status": "failed", "reason": "no\nGPU"},
        ]
    )
    return store
