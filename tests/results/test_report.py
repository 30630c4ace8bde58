from __future__ import annotations

import base64
import csv
import gc
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lungan.errors import RunFolderError
from lungan.results.__main__ import main
from lungan.results.report import Results, write_results
from tests.results.conftest import scoring

HEAVY = ("torch", "hydra", "omegaconf", "wandb", "pandas", "matplotlib", "scipy", "numpy")


def rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text())))


def content(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


class Page(HTMLParser):
    """Collects tags and whatever could make a browser fetch or run something."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.sources: list[str] = []
        self.handlers: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attributes:
            if (tag, name) == ("a", "href"):
                self.links.append(value or "")
            elif name in ("src", "href", "srcset", "action", "data"):
                self.sources.append(value or "")
            if name.startswith("on"):
                self.handlers.append(name)


def test_study_in_full(written_study: Results) -> None:
    results, out = written_study, written_study.out
    assert sorted(content(out)) == sorted(str(path.relative_to(out)) for path in results.files)
    tables = ("results", "summary", "comparisons")
    expected = {f"{name}.{kind}" for name in tables for kind in ("csv", "md", "tex")}
    expected |= {"report.html", "problems.csv", "losses.png", "samples.png", "scores.png"}
    assert {path.name for path in results.files} == expected
    table = rows(out / "results.csv")
    assert len(table) == 20
    first = table[0]
    assert (first["status"], first["optimizer.name"], first["epochs"]) == ("done", "adam", "50")
    assert (first["scores.num_images"], first["domain.precision.floor"]) == ("624", "0.85")
    assert (first["seconds.total"], first["versions.torch"]) == ("64.0", "2.13.0")
    assert first["inception.inception_score"] == ""
    reasons = {row["status"]: row["reason"] for row in table}
    assert reasons["diverged"] == "loss_generator is not finite at epoch 17"
    assert len(rows(out / "summary.csv")) == 12
    comparisons = rows(out / "comparisons.csv")
    assert len(comparisons) == 18
    assert {"no significant difference"} < {row["verdict"] for row in comparisons}
    assert rows(out / "problems.csv")[0]["name"].startswith("adam-100ep-s4-")
    for name in ("losses", "samples", "scores"):
        with Image.open(out / "figures" / f"{name}.png") as image:
            assert image.width == 1196
    assert max(path.stat().st_size for path in results.files) < 2**20


def test_same_runs_give_same_bytes(study: Any, written_study: Results, tmp_path: Path) -> None:
    write_results(study.path, "study", tmp_path / "again")
    assert content(tmp_path / "again") == content(written_study.out)


def test_nothing_stale_stays(store: Any, written_study: Results, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(written_study.out, out)
    store.run(status="failed", reason="no")
    results = write_results(store.path, None, out)
    assert sorted(content(out)) == sorted(str(path.relative_to(out)) for path in results.files)


def test_untrusted_text_stays_text(store: Any, tmp_path: Path) -> None:
    attack = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'&"
    config = store.config()
    config["optimizer"]["name"] = attack.replace("/", "")
    digits = store.run_hash(config)[:8]
    store.run(config, name=f"run-<b onclick=x>-{digits}", status="failed", reason=attack)
    for seed in range(3):
        store.run(
            store.config(seed=seed), values={f"domain.{attack}": seed + 0.5}, git_commit=attack
        )
    store.manifest(question=attack, command=attack, created=attack)
    write_results(store.path, "study", tmp_path / "out")
    page = Page((tmp_path / "out" / "report.html").read_text())
    assert page.tags.count("script") == 1
    assert page.tags.count("img") == page.tags.count("b") == page.tags.count("figure") > 0
    assert page.handlers == []
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert f"../runs/run-%3Cb%20onclick%3Dx%3E-{digits}/" in page.links


def test_page_needs_nothing_from_outside(written_study: Results) -> None:
    text = (written_study.out / "report.html").read_text()
    page = Page(text)
    assert len(page.sources) == 3
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert "link" not in page.tags
    assert not re.search(r"https?://|url\(|@import|fetch\(", text)
    assert "default-src 'none'" in text
    for said in (
        "Which optimizer makes better radiographs, and do more epochs help?",
        "python -m lungan.train --multirun",
        "--sweep study --out results/study",
        "2.13.0",
        "Problems",
        "Sweep begun 2026-01-02 03:04 UTC<",
        "results.csv (a row a run",
    ):
        assert said in text
    assert str(written_study.out.parent) not in text


def test_the_page_opens_with_the_answer_and_then_shows_images(written_study: Results) -> None:
    text = (written_study.out / "report.html").read_text().replace("\N{NO-BREAK SPACE}", " ")
    said = (
        f'<p class="answer">{written_study.verdicts[0]}</p>',
        'alt="Generated images side by side"',
        "<h2>Scores by group</h2>",
        'alt="Losses of generator and discriminator"',
        "<h2>Verdicts</h2>",
        written_study.verdicts[1],
        "<h2>Caveats</h2>",
        "<h2>To repeat it</h2>",
    )
    places = [text.index(each) for each in said]
    assert places == sorted(places)
    assert text.count(written_study.verdicts[0]) == 1


def test_no_line_of_the_page_breaks_inside_a_number(written_study: Results) -> None:
    text = (written_study.out / "report.html").read_text().replace("\N{NO-BREAK SPACE}", "_")
    answer = text.partition('<p class="answer">')[2].partition("</p>")[0]
    assert "(95_%_CI_1.41_to_1.82, corrected p_=_0.002)" in answer
    assert ">20.4 (19.6_to_21.3)</td>" in text
    assert "0.594_±_0.084" in text
    assert "(n_=_4_of_5)" in text
    assert "optimizer=adam,rmsprop epochs=50,100 &#39;seed=range(5)&#39;" in text  # to be copied


@pytest.mark.parametrize("num_groups", [30, 31])
def test_the_table_of_many_groups_is_folded(num_groups: int, store: Any, tmp_path: Path) -> None:
    for epochs in range(1, num_groups + 1):
        store.run(store.config(epochs=epochs), values={"domain.precision": epochs / 100})
    write_results(store.path, None, tmp_path)
    text = (tmp_path / "report.html").read_text()
    assert ("<summary>The table of all groups</summary>" in text) == (num_groups > 30)


def test_real_images_stand_above_the_groups_with_their_classes(store: Any, tmp_path: Path) -> None:
    grey = Image.new("L", (238, 118), 200)
    for optimizer in ("adam", "rmsprop"):
        folder = store.run(store.config(optimizer), pictures=True)
        (folder / "samples" / "classes.json").write_text(json.dumps(["a <b>"] * 20 + ["c"] * 12))
        (folder / "figures").mkdir()
        grey.save(folder / "figures" / "real_images.png")
    results = write_results(store.path, None, tmp_path / "out")
    assert results.problems == []
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Classes, row by row: 20 a &lt;b&gt;, 12 c. " in page
    assert "Real images may be patients&#39;" in page
    with Image.open(tmp_path / "out" / "figures" / "samples.png") as image:
        half, third = image.width // 2, image.height // 3
        assert image.getpixel((half // 2, third // 2)) == (200, 200, 200)
        right = image.crop((half + 5, 0, image.width, third - 20))
        assert right.getextrema() == ((255, 255),) * 3


def test_damaged_real_images_and_classes_are_problems(store: Any, tmp_path: Path) -> None:
    folder = store.run(pictures=True)
    (folder / "samples" / "classes.json").write_text("3")
    (folder / "figures").mkdir()
    (folder / "figures" / "real_images.png").write_bytes(b"\x89PNG broken")
    results = write_results(store.path, None, tmp_path / "out")
    assert [problem.text for problem in results.problems] == [
        f"{folder.name}/samples/classes.json is damaged: it must be a list, got int; "
        "remove it and repeat the command that made it",
        "figures/real_images.png is not a usable PNG",
    ]
    assert (tmp_path / "out" / "figures" / "samples.png").is_file()


def test_runs_are_linked_where_that_tells_nothing_of_this_machine(
    study: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def links(store: Path, out: Path) -> list[str]:
        write_results(store, "study", out)
        return Page((out / "report.html").read_text()).links

    out = tmp_path / "out"
    found = links(study.path, out)
    assert len(found) == 18
    assert all((out / link / "config.yaml").is_file() for link in found)
    inside = study.path / "sweeps" / "study"
    assert all((inside / link).is_dir() for link in links(study.path, inside))
    monkeypatch.chdir(tmp_path.parent)
    relative = Path(tmp_path.name) / "runs"
    assert len(links(relative, Path(tmp_path.name) / "a" / "b")) == 18
    assert links(study.path, tmp_path.parent / f"{tmp_path.name}-elsewhere" / "out") == []


def test_runs_that_were_sent_to_wandb_are_linked_where_the_account_is_known(
    store: Any, tmp_path: Path
) -> None:
    digits = "0123456789abcdef"
    sent = {
        f"team lungan {digits}": "team/lungan",
        f"https://api.wandb.ai team lungan {digits} artifacts": "team/lungan",
        f"lungan {digits}": None,
        f"javascript:alert(1) team lungan {digits}": None,
        "[]": None,
    }
    for seed, destination in enumerate(sent):
        folder = store.run(store.config(seed=seed))
        (folder / "wandb").mkdir()
        text = json.dumps({destination: "hash"}) if destination != "[]" else destination
        (folder / "wandb" / "sent.json").write_text(text)
    write_results(store.path, None, tmp_path / "out")
    links = Page((tmp_path / "out" / "report.html").read_text()).links
    found = [link for link in links if link.startswith(("http", "java"))]
    assert found == [f"https://wandb.ai/{place}/runs/{digits}" for place in sent.values() if place]


def test_the_command_on_the_page_names_no_place_of_this_machine(store: Any, tmp_path: Path) -> None:
    store.run()
    store.manifest(command="python -m lungan.train data.path=/srv/anna/films store=~/anna/runs")
    write_results(store.path, "study", tmp_path / "out")
    text = (tmp_path / "out" / "report.html").read_text()
    assert "python -m lungan.train data.path=films store=runs\n" in text
    assert "anna" not in text


def test_reasons_and_problems_name_no_place_of_this_machine(study: Any, tmp_path: Path) -> None:
    inside = study.path / "adam-1"
    reasons = {
        f"OSError: {inside / 'log.txt'}: no space left": "OSError: adam-1/log.txt: no space left",
        f"no weights ({Path.home() / 'anna/w.pth'})": "no weights (w.pth)",
        f"see '{study.path / 'adam-1' / 'a b.png'}'": "see 'adam-1/a b.png'",
    }
    films = {"name": "table", "path": "/srv/anna/films.csv", "root": "anna/films"}
    for seed, reason in enumerate(reasons, 20):
        config = study.config(seed=seed) | {"data": films}
        scored = scoring({"domain.precision": 0.5}) | {"reasons": {"inception": reason}}
        study.run(config, status="failed", reason=reason, scores=scored)
    (study.path / "sweeps" / "more.ledger.jsonl").mkdir()
    study.manifest("more")
    write_results(study.path, "more", tmp_path / "out")
    table = {row["reason"]: row for row in rows(tmp_path / "out" / "results.csv")}
    for said in reasons.values():
        assert (table[said]["data.path"], table[said]["data.root"]) == ("films.csv", "films")
        assert table[said]["scores.reasons"] == f"inception: {said}"
    (problem,) = (row for row in rows(tmp_path / "out" / "problems.csv") if "ledger" in row["name"])
    assert problem["problem"].startswith("sweeps/more.ledger.jsonl ")
    for name, text in content(tmp_path / "out").items():
        assert str(tmp_path).encode() not in text, name
        assert b"anna" not in text, name


def test_script_has_the_hash_that_the_policy_allows(written_study: Results) -> None:
    text = (written_study.out / "report.html").read_text()
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in text


def test_damaged_metrics_and_samples_are_problems(store: Any, tmp_path: Path) -> None:
    for seed in range(2):
        store.run(store.config(seed=seed), values={"domain.precision": 0.5 + seed}, pictures=True)
    first, second = (store.path / entry["folder"] for entry in store.entries)
    (first / "metrics.jsonl").write_text("{}\nnot json\n{}\n")
    (first / "samples" / "epoch_0050.png").write_bytes(b"\x89PNG broken")
    (second / "metrics.jsonl").unlink()
    results = write_results(store.path, None, tmp_path / "out")
    assert [problem.text for problem in results.problems] == [
        "samples/epoch_0050.png is not a usable PNG",
        f"{first.name}/metrics.jsonl is damaged: line 1 is no epoch's metrics; remove its folder "
        "to train the run again",
        "metrics.jsonl has no epoch: no loss curve",
    ]
    assert [path.name for path in results.files if path.suffix == ".png"] == ["scores.png"]


def test_spectra_are_drawn_of_the_runs_that_have_sound_ones(store: Any, tmp_path: Path) -> None:
    names = ("generated_mean", "real_mean", "real_low", "real_high")
    sound = {name: [9.0 - ring + step for ring in range(8)] for step, name in enumerate(names)}
    ragged = {**sound, "real_low": [1.0]}
    result = scoring({"spectrum.coverage": 0.5})
    for seed, spectra in enumerate((sound, ragged, {}, None)):
        encoder = {"weights_hash": "5e" * 32, "spectra": spectra}
        scores = {**result, "encoders": {"spectrum": encoder}}
        store.run(store.config(seed=seed), scores=scores)
    results = write_results(store.path, None, tmp_path / "out")
    [figure] = [figure for figure in results.figures if figure.file == "spectra.png"]
    assert "95 % of those real images" in figure.caption
    assert figure.title in (tmp_path / "out" / "report.html").read_text()
    names_of = [entry["folder"] for entry in store.entries]
    text = "its spectra must be lists of equally many numbers: " + ", ".join(names)
    assert [(problem.name, problem.text) for problem in results.problems] == [
        (names_of[1], text),
        (names_of[2], text),
    ]


@pytest.mark.parametrize(("worst", "logarithmic"), [(5.0, True), (0.4, False)])
def test_scores_far_apart_are_on_a_logarithmic_axis(
    store: Any, tmp_path: Path, worst: float, logarithmic: bool
) -> None:
    for seed, distance in enumerate((0.02, worst)):
        store.run(store.config(seed=seed), values={"domain.frechet_distance": distance})
    write_results(store.path, None, tmp_path / "out")
    text = (tmp_path / "out" / "report.html").read_text()
    assert ("on a logarithmic axis" in text) == logarithmic


@pytest.mark.parametrize("num_seeds", [1, 2])
def test_captions_speak_of_seeds_where_there_are_several(
    num_seeds: int, store: Any, tmp_path: Path
) -> None:
    floor = {"domain.precision.floor": 0.9, "domain.precision.floor_std": 0.3}
    for seed in range(num_seeds):
        store.run(store.config(seed=seed), values={"domain.precision": 0.5 + seed / 10, **floor})
    results = write_results(store.path, None, tmp_path / "out")
    captions = [figure.caption for figure in results.figures]
    assert len(captions) == 2
    assert all(each.startswith("One run a group.") == (num_seeds == 1) for each in captions)
    assert all(("over seeds" in each) == (num_seeds > 1) for each in captions)
    is_cut = ["Intervals of too few seeds are cut" in each for each in captions]
    assert is_cut == [num_seeds > 1, False], "a floor's band that is cut is no interval of seeds"


def test_a_score_outside_what_is_said_to_be_possible_is_drawn(store: Any, tmp_path: Path) -> None:
    for seed in range(2):
        store.run(store.config(seed=seed), values={"domain.density": -1.0 - seed})
    results = write_results(store.path, None, tmp_path / "out")
    assert "scores.png" in [figure.file for figure in results.figures]


def test_losses_that_are_not_finite_are_drawn_to_where_they_end(store: Any, tmp_path: Path) -> None:
    folder = store.run(status="diverged")
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(
            json.dumps({"epoch": 17, "loss_generator": None, "loss_discriminator": 1e30}) + "\n"
        )
    results = write_results(store.path, None, tmp_path / "out")
    assert results.problems == []
    assert (tmp_path / "out" / "figures" / "losses.png").is_file()


def test_unknown_scores_and_no_seeds_are_fine(store: Any, tmp_path: Path) -> None:
    for seed in range(3):
        config = store.config(seed=seed)
        del config["seed"]
        config["width"] = seed % 2
        store.run(
            {**config, "seed": seed},
            values={"auc": 0.9, "utility.arm.real.auc": 0.1 * seed},
            config=config,
        )
    write_results(store.path, None, tmp_path / "out")
    header = (tmp_path / "out" / "results.csv").read_text().splitlines()[0]
    assert "auc" in header.split(",")
    assert "utility.arm.real.auc" in header.split(",")


def test_command(study: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert (
        main([str(study.path), "--sweep", "study", "--out", str(out), "--columns", "data.size"])
        == 0
    )
    captured = capsys.readouterr()
    assert "15 of 20 runs finished" in captured.out
    assert "report.html" in captured.out
    assert captured.err.startswith("passed over adam-100ep-s4-")
    assert rows(out / "results.csv")[0]["data.size"] == "28"


@pytest.mark.parametrize("was_enabled", [True, False])
def test_command_leaves_garbage_collection_as_it_was(
    was_enabled: bool, store: Any, tmp_path: Path
) -> None:
    store.run()
    before = gc.isenabled()
    try:
        for folder, code in ((store.path, 0), (tmp_path / "nowhere", 2)):
            (gc.enable if was_enabled else gc.disable)()
            assert main([str(folder), "--out", str(tmp_path / "out")]) == code
            assert gc.isenabled() == was_enabled
    finally:
        (gc.enable if before else gc.disable)()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], r"RunFolderError: the store must be a folder of runs, got nowhere"),
        (["{store}", "--sweep", "nix"], r"RunFolderError: no sweep named nix in the store"),
        (["{store}", "--columns", "lrr"], r"ConfigError: columns must be config keys .* got lrr"),
        (
            ["{store}", "--out", "{file}"],
            r"RunFolderError: out must be a folder that can be written",
        ),
    ],
)
def test_bad_input_is_one_line(
    store: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    store.run()
    file = tmp_path / "file"
    file.write_text("")
    out = ["--out", str(tmp_path / "out")] if "--out" not in arguments else []
    code = main([text.format(store=store.path, file=file) for text in arguments] + out)
    captured = capsys.readouterr()
    assert code == 2
    assert re.match(message, captured.err)
    assert captured.err.count("\n") == 1
    assert captured.out == ""


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_folder_without_permission(store: Any, tmp_path: Path) -> None:
    store.run()
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    with pytest.raises(RunFolderError, match="out must be a folder that can be written"):
        write_results(store.path, None, locked / "out")
    written = tmp_path / "written"
    (written / "figures").mkdir(parents=True)
    written.chmod(0o500)  # as left by somebody else: mkdir has nothing to say of it
    with pytest.raises(RunFolderError, match="out must be a folder that can be written"):
        write_results(store.path, None, written)


def loaded_by(statement: str) -> list[str]:
    code = f"{statement}\nimport sys\nprint(*[m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_import_stays_light() -> None:
    assert loaded_by("import lungan.results.__main__") == []
    assert loaded_by("import scipy") == ["scipy", "numpy"]


def test_writing_loads_neither_torch_nor_hydra(store: Any, tmp_path: Path) -> None:
    store.run(values={"domain.precision": 0.5}, pictures=True)
    paths = f"Path({str(store.path)!r}), None, Path({str(tmp_path / 'out')!r})"
    imports = "from pathlib import Path\nfrom lungan.results.report import write_results"
    loaded = loaded_by(f"{imports}\nwrite_results({paths})")
    assert set(loaded) <= {"matplotlib", "numpy", "pandas", "scipy"}
    assert "matplotlib" in loaded
