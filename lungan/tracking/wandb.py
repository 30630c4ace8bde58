"""Weights & Biases: one W&B run for each run, live or afterwards.

No import of wandb, which takes a second, outside the functions.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from lungan.config.run import AGENT_VARIABLE, WandbConfig
from lungan.errors import RunFolderError
from lungan.files import read_json, write_json
from lungan.runs.folder import WANDB, grid_classes, real_images_path
from lungan.runs.pictures import GRID_COLUMNS
from lungan.tracking.records import Epoch, TrackedRun, TrackerError, data_found

if TYPE_CHECKING:
    import wandb

PROJECT = "lungan"
ID_DIGITS = 16
FINISH_SECONDS = 60.0
"""W&B sends so long after the end of a run that it followed; nobody waits for it."""

SENT = "sent.json"
"""In a run folder's wandb/: what W&B has in full."""

ARTIFACTS = " artifacts"
"""Behind a destination in sent.json: it has the artifacts too."""

_DESTINATION = re.compile(
    r"((?P<base>https?://[^ ]+) )?(?P<entity>[^ ]+) (?P<project>[^ ]+) (?P<id>[0-9a-f]{16})"
    f"({ARTIFACTS})?"
)
"""In sent.json, where the account is known."""

SCORE_COLUMNS = ("value", "std", "floor", "floor_low", "floor_high", "floor_std", "real")
"""Of the score table, behind encoder and score; other values of a score follow them."""

_EXIT_CODES = {"done": 0, "diverged": 3}  # 1 for all others
_LEFT_OUT = ("config", "data", "scores", "machine", "seconds", "best_epoch", "name")
_SETTINGS: dict[str, Any] = {
    "silent": True,
    "console": "off",
    "host": "",
    "program": "lungan",
    "disable_git": True,
    "disable_code": True,
    "save_code": False,
    "x_save_requirements": False,
    "x_disable_machine_info": True,
    "x_disable_meta": True,
    "x_disable_stats": True,
}


class WandbTracker:
    """One W&B run, under the first digits of the run id.

    A run that goes on, and one that is uploaded once more, is sent from its first epoch on: W&B
    puts rows of the same number in place of those that it has, and a file that was lost comes.

    directory: for an upload afterwards, where W&B keeps what it has not sent, in place of the run
    folder. W&B may take its time then, and of its variables those that name one run are read under
    a W&B agent only.
    """

    def __init__(
        self, config: WandbConfig, run: TrackedRun, *, directory: Path | None = None
    ) -> None:
        self._tracked = run
        self._is_live = directory is None
        self._real_images = config.real_images
        environment = dict(os.environ)
        if directory is not None:
            environment["WANDB_DIR"] = str(directory)
            if not environment.get(AGENT_VARIABLE):
                environment |= {"WANDB_RUN_ID": "", "WANDB_NAME": ""}
        self._arguments = init_arguments(config, run, environment)
        self.mode: str = self._arguments["mode"]
        self._defined = {"epoch"}

    def open(self) -> None:
        # Crash reports would leave the machine even in offline mode. Read by wandb when imported.
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        try:
            import wandb
        except ImportError as error:
            raise TrackerError(f"W&B is not installed ({error}); pip install wandb") from error
        if self.mode == "online" and not logged_in():
            raise TrackerError("W&B has no login here: wandb login, then lungan upload")
        # W&B calls some of ours internal: left out where an installed version lacks them.
        known = wandb.Settings.model_fields
        settings = {key: value for key, value in _SETTINGS.items() if key in known}
        if self.mode == "online":
            limit = {"finish_timeout": FINISH_SECONDS} if self._is_live else {}
            settings |= {"finish_timeout_raises": True, **limit}
        Path(self._arguments["dir"]).mkdir(parents=True, exist_ok=True)
        superseded = self.recordings()
        self._run = wandb.init(
            **self._arguments, reinit="finish_previous", settings=wandb.Settings(**settings)
        )
        for recording in superseded:
            if recording != Path(self._run.dir).parent:
                shutil.rmtree(recording, ignore_errors=True)
        self._run.define_metric("epoch")

    def add(self, epoch: Epoch) -> None:
        run = self._run
        metrics = dict(epoch.metrics)
        if "seconds" in metrics:  # the summary's are of the whole run
            metrics["seconds_epoch"] = metrics.pop("seconds")
        row: dict[str, Any] = {wandb_name(key): value for key, value in epoch.scores.items()}
        row |= metrics
        for key in row.keys() - self._defined:
            # A score's summary stays the one number that sweeps and bars go by.
            summary = "min,max,last" if key in metrics else None
            run.define_metric(key, step_metric="epoch", summary=summary)
        self._defined |= row.keys()
        if epoch.samples is not None:
            row["samples"] = self._image(epoch.samples)
        real = real_images_path(self._tracked.folder)
        if self._real_images and epoch.epoch == 1 and real.is_file():
            row["real_images"] = self._image(real)
        run.log(row, step=epoch.epoch)

    def add_artifacts(self, used: Sequence[wandb.Artifact], made: Sequence[wandb.Artifact]) -> None:
        """Say what the run is made from and what it made; online only."""
        for artifact in used:
            self._run.use_artifact(artifact)
        for artifact in made:
            self._run.log_artifact(artifact)

    def close(self, summary: dict[str, Any] | None) -> None:
        import wandb

        run = self._run
        if summary is None:
            run.finish(exit_code=1)
            return
        try:
            if scores := summary.get("scores"):
                columns, rows = score_table(scores["values"])
                table = wandb.Table(columns=[*columns], data=[*rows])
                run.log({"score_table": table}, step=summary["epochs_done"] + 1)
            run.summary.update(flat_summary(summary))
            if "data" in summary:
                found = {"data_found": data_found(summary)}
                run.config.update(found)  # type: ignore[no-untyped-call]
        finally:
            run.finish(exit_code=_EXIT_CODES.get(summary["status"], 1))
        if self.mode == "online":
            remember_sent(self._tracked.folder, self.destination, self.fingerprint(summary))

    @property
    def destination(self) -> str:
        """Where the run is sent, as ``sent.json`` names it."""
        keys = ("entity", "project", "id")
        base = os.environ.get("WANDB_BASE_URL", "")
        return " ".join([base, *(str(self._arguments[key] or "") for key in keys)]).strip()

    def fingerprint(self, summary: Mapping[str, Any]) -> str:
        """Of all that W&B is sent of a finished run."""
        keys = ("status", "epochs_done", "scores", "seconds")
        content: list[Any] = [{key: summary.get(key) for key in keys}, self._real_images]
        content += [self._arguments[key] for key in ("name", "group", "tags", "notes")]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def _image(self, path: Path) -> wandb.Image:
        import wandb

        classes = grid_classes(self._tracked.folder)
        caption = f"rows of {GRID_COLUMNS}: {classes}" if classes else None
        return wandb.Image(str(path), caption=caption)

    def recordings(self) -> list[Path]:
        """The offline recordings of this run; a new one replaces the others as a whole."""
        if self.mode != "offline":
            return []
        pattern = f"offline-run-*-{self._arguments['id']}"
        return sorted((Path(self._arguments["dir"]) / "wandb").glob(pattern))


def init_arguments(
    config: WandbConfig, run: TrackedRun, environment: Mapping[str, str]
) -> dict[str, Any]:
    """What wandb.init is given: the config, and where it leaves something open W&B's own variables.

    Under a W&B agent (``WANDB_SWEEP_ID``) the run, project and entity are the agent's.
    """

    def variable(name: str) -> str | None:
        return environment.get(f"WANDB_{name}") or None

    agent = variable("SWEEP_ID") is not None
    mode = variable("MODE")
    mode = {"dryrun": "offline", "run": "online", "shared": "online"}.get(mode or "", mode)
    if mode == "disabled" or (variable("DISABLED") or "").lower() in ("1", "true", "yes", "on"):
        mode = "disabled"
    else:
        mode = config.mode or mode or ("online" if agent else "offline")
    name, own_id = run.name, None
    if agent or run.sweep is None:
        own_id = variable("RUN_ID")
        name = variable("NAME") or name
    elif variable("NAME"):
        name = f"{variable('NAME')} {name}"  # several runs are told apart still
    return {
        "mode": mode,
        "project": config.project or variable("PROJECT") or PROJECT,
        "entity": config.entity or variable("ENTITY"),
        "dir": variable("DIR") or str(run.folder.resolve()),
        "id": own_id or run.run_id[:ID_DIGITS],
        "name": name,
        "group": config.group or variable("RUN_GROUP") or run.sweep,
        "job_type": variable("JOB_TYPE") or run.job_type,
        "tags": list(config.tags) or [tag for tag in (variable("TAGS") or "").split(",") if tag],
        "notes": variable("NOTES") or run.question or None,
        "config": run.config,
    }


def wandb_name(key: str) -> str:
    """``domain.recall.floor`` to ``domain_recall_floor``: W&B sorts and filters by no dots."""
    return key.replace(".", "_")


def flat_summary(summary: Mapping[str, Any]) -> dict[str, Any]:
    """summary.json's content as W&B's summary: flat names, without config, machine and nulls."""
    flat = {key: value for key, value in summary.items() if key not in _LEFT_OUT}
    flat["folder"] = summary.get("name")
    if summary["status"] == "failed":  # what other people's errors say may name anything
        flat["reason"] = str(summary["reason"]).partition(":")[0]
    flat |= {f"seconds_{phase}": value for phase, value in (summary.get("seconds") or {}).items()}
    if best := summary.get("best_epoch"):
        flat |= {"best_epoch": best["epoch"], "best_score": best["score"]}
        flat["best_value"] = best["value"]
    if scores := summary.get("scores"):
        flat |= {wandb_name(key): value for key, value in scores["values"].items()}
        for key in ("epoch", "num_images", "scoring_id", "encoders", "reasons"):
            flat[f"scores_{key}"] = scores.get(key)
    return {key: value for key, value in flat.items() if value is not None}


def score_table(values: Mapping[str, float | None]) -> tuple[list[str], list[list[Any]]]:
    """Columns and rows of a table with a row for each score of each encoder: its value, floor and
    what else is known, None where a score has none. values: by flat key, as scores.json has them.
    """
    rows: dict[tuple[str, str], dict[str, float | None]] = {}
    for key, value in values.items():
        encoder, score, *of_it = key.split(".") if "." in key else ("", key)
        rows.setdefault((encoder, score), {})["_".join(of_it) or "value"] = value
    found = dict.fromkeys(column for row in rows.values() for column in row)
    columns = [*SCORE_COLUMNS, *(column for column in found if column not in SCORE_COLUMNS)]
    filled = [[*names, *(row.get(column) for column in columns)] for names, row in rows.items()]
    return ["encoder", "score", *columns], filled


def sent(folder: Path) -> dict[str, str]:
    """What W&B has of a run folder in full, by where it was sent."""
    try:
        found: dict[str, str] = read_json(folder / WANDB / SENT)
    except RunFolderError:
        return {}
    return found


def address(folder: Path) -> str:
    """Where W&B shows the run of a folder; empty where it has none, or where the account was left
    to W&B."""
    for destination in reversed(sent(folder)):
        if place := _DESTINATION.fullmatch(destination):
            host = (place["base"] or "https://wandb.ai").replace("//api.", "//")
            way = "/".join(map(quote, place.group("entity", "project")))
            return f"{host}/{way}/runs/{place['id']}"
    return ""


def remember_sent(folder: Path, destination: str, content: str) -> None:
    write_json(folder / WANDB / SENT, sent(folder) | {destination: content})


def logged_in() -> bool:
    """Whether W&B finds credentials; nobody is asked for them. Raises: ImportError."""
    import wandb

    wandb.setup(settings=wandb.Settings(silent=True, mode="online"))
    return wandb.login(prompt=False, verify=False)
