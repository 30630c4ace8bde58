"""PneumoniaMNIST: where it is looked for, what is refused, and the real one's counts."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pooch
import pytest

from lungan.config.data import PneumoniaMnistConfig
from lungan.data import medmnist
from lungan.data.medmnist import load_pneumoniamnist
from lungan.errors import DataError


def config(**changes: Any) -> PneumoniaMnistConfig:
    settings: dict[str, Any] = {
        **{"name": "pneumoniamnist", "size": 28, "channels": 1, "splits": ["train", "val"]},
        **{"classes": ["pneumonia"], "path": None, "download": False},
    }
    return PneumoniaMnistConfig(**{**settings, **changes})


def arrays(size: int = 28, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    made: dict[str, np.ndarray] = {}
    for split, num_images in (("train", 6), ("val", 3), ("test", 4)):
        made[f"{split}_images"] = rng.integers(0, 256, (num_images, size, size), dtype=np.uint8)
        made[f"{split}_labels"] = (np.arange(num_images) % 2).astype(np.uint8)[:, None]
    return made


def save(path: Path, **changes: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    made = {**arrays(), **changes}
    np.savez(path, **{key: value for key, value in made.items() if value is not None})
    return path


def test_a_file_gives_all_of_it(tmp_path: Path) -> None:
    path = save(tmp_path / "any name.npz")
    images = load_pneumoniamnist(config(path=str(path)))
    assert images.images.shape == (13, 1, 28, 28)
    assert np.array_equal(images.images[6:9, 0], arrays()["val_images"])
    assert images.labels.tolist() == [0, 1, 0, 1, 0, 1, 0, 1, 0, 0, 1, 0, 1]
    assert images.splits.tolist() == [0] * 6 + [1] * 3 + [2] * 4
    assert images.class_names == ("normal", "pneumonia")
    assert images.split_names == ("train", "val", "test")
    assert images.source == "PneumoniaMNIST 28x28 (MedMNIST v2, CC BY 4.0)"


def test_looked_for_at_path_then_environment_then_cache(
    tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = {
        "path": tmp_path / "a/pneumoniamnist.npz",
        "environment": tmp_path / "b/pneumoniamnist.npz",
        "cache": own_cache / "pneumoniamnist.npz",
    }
    first = {}
    for seed, (name, path) in enumerate(places.items()):
        save(path, **arrays(seed=seed))
        first[name] = arrays(seed=seed)["train_images"][0]

    def found(path: Path | None) -> np.ndarray:
        return load_pneumoniamnist(config(path=path and str(path))).images[0, 0]

    assert np.array_equal(found(None), first["cache"])
    for place in (places["environment"], places["environment"].parent):
        monkeypatch.setenv("LUNGAN_DATA", str(place))
        assert np.array_equal(found(None), first["environment"])
    for place in (places["path"], places["path"].parent):
        assert np.array_equal(found(place), first["path"])
    places["environment"].rename(tmp_path / "b/other data.npz")
    assert np.array_equal(found(None), first["cache"])


def test_the_name_says_the_size(tmp_path: Path) -> None:
    for size in (64, 128, 224):
        save(tmp_path / f"pneumoniamnist_{size}.npz", **arrays(size))
        images = load_pneumoniamnist(config(path=str(tmp_path), size=size))
        assert images.size == size
        assert images.source.startswith(f"PneumoniaMNIST {size}x{size} ")


NOT_IT = "is not PneumoniaMNIST, whose grey images are of the classes 0 and 1 in train, val, test"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"val_images": None, "val_labels": None}, NOT_IT),
        ({"test_labels": None}, "lacks test_labels; every split must have labels"),
        ({"test_labels": np.full((4, 1), 2, np.uint8)}, NOT_IT),
        ({"test_labels": np.zeros((4, 1), np.uint8)}, NOT_IT),
        (
            {"train_images": np.zeros((6, 28, 28, 3), np.uint8)},
            "must be all grey or all in colour: .*data.npz: train image 0 is 28x28 in colour and",
        ),
        (
            {f"{split}_images": None for split in ("train", "val")}
            | {f"{split}_labels": None for split in ("train", "val")},
            NOT_IT,
        ),
        (
            arrays(64),
            r"data.size is 28, but .* holds images of 64x64 pixels; set data.size=64, or give "
            r"pneumoniamnist.npz",
        ),
        ({"train_images": np.zeros((6, 28, 28))}, "train_images must be uint8 from 0 to 255"),
        ({"val_labels": np.zeros((5, 1), np.uint8)}, r"val_labels must be one number an image"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = save(tmp_path / "data.npz", **changes)
    with pytest.raises(DataError, match=message):
        load_pneumoniamnist(config(path=str(path)))


def test_a_named_place_must_hold_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    absent = tmp_path / "absent"
    with pytest.raises(
        DataError, match=r"^data.path must be pneumoniamnist.npz or .*not exist; imag"
    ):
        load_pneumoniamnist(config(path=str(absent)))
    with pytest.raises(
        DataError, match=r"^data.path must be pneumoniamnist_64.npz or a folder that holds"
    ):
        load_pneumoniamnist(config(path=str(tmp_path), size=64))
    monkeypatch.setenv("LUNGAN_DATA", str(absent))
    with pytest.raises(
        DataError, match=r"^LUNGAN_DATA must be pneumoniamnist.npz or .*not exist; im"
    ):
        load_pneumoniamnist(config())


def test_no_download_unasked(own_cache: Path) -> None:
    with pytest.raises(DataError) as caught:
        load_pneumoniamnist(config())
    assert str(caught.value) == (
        "pneumoniamnist.npz is not at hand and data.download is false: get pneumoniamnist.npz "
        f"from https://zenodo.org/records/10519652 and put it into {own_cache}, or set "
        "data.path; data=phantom needs no download"
    )


Answer = tuple[int, bytes, int]
"""Status, body, and the length that the header claims."""


class Stub:
    """A server on this machine that gives its answers one after the other, then the last again."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.paths: list[str] = []
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                stub.paths.append(self.path)
                index = min(len(stub.paths), len(stub.answers)) - 1
                status, body, length = stub.answers[index]
                self.send_response(status)
                self.send_header("Content-Length", str(length))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Keeps the tests' output clean."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=lambda: self.server.serve_forever(0.01), daemon=True)
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def body(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """A small data set, taken for the published one."""
    data = save(tmp_path / "published.npz").read_bytes()
    md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
    monkeypatch.setitem(medmnist.FILES, 28, ("pneumoniamnist.npz", md5))
    return data


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stub]:
    server = Stub()
    monkeypatch.setattr(medmnist, "RECORD_URL", server.url)
    monkeypatch.setattr(pooch.core.time, "sleep", lambda _: None)
    yield server
    server.close()


def remains(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_download_once(stub: Stub, body: bytes, own_cache: Path) -> None:
    stub.answers = [(200, body, len(body))]
    for _ in range(2):
        assert len(load_pneumoniamnist(config(download=True))) == 13
    assert stub.paths == ["/files/pneumoniamnist.npz?download=1"]
    assert [name for name in remains(own_cache) if not name.startswith(".")] == [
        "pneumoniamnist.npz"
    ]
    assert len(load_pneumoniamnist(config(download=False))) == 13


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_passing_failure_is_tried_again(stub: Stub, body: bytes, status: int) -> None:
    stub.answers = [(status, b"busy", 4), (200, body, len(body))]
    assert len(load_pneumoniamnist(config(download=True))) == 13
    assert len(stub.paths) == 2


@pytest.mark.parametrize("status", [404, 500])
def test_what_the_server_answers_in_the_end_is_said(
    stub: Stub, own_cache: Path, status: int
) -> None:
    stub.answers = [(status, b"", 0)]
    with pytest.raises(DataError, match=rf"cannot be downloaded \(the server answers {status} "):
        load_pneumoniamnist(config(download=True))
    assert len(stub.paths) == 3
    assert "pneumoniamnist.npz" not in remains(own_cache)


def test_other_and_truncated_files_are_never_kept(stub: Stub, body: bytes, own_cache: Path) -> None:
    for answer in ((200, body[:-1] + b"?", len(body)), (200, body[:500], len(body))):
        stub.answers = [answer]
        with pytest.raises(DataError, match=r"cannot be downloaded \((what came is|no connection)"):
            load_pneumoniamnist(config(download=True))
        assert "pneumoniamnist.npz" not in remains(own_cache)


def test_truncated_then_whole(stub: Stub, body: bytes) -> None:
    stub.answers = [(200, body[:500], len(body)), (200, body, len(body))]
    assert len(load_pneumoniamnist(config(download=True))) == 13


def test_connection_refused(stub: Stub, own_cache: Path) -> None:
    stub.close()
    with pytest.raises(DataError) as caught:
        load_pneumoniamnist(config(download=True))
    message = str(caught.value)
    assert "cannot be downloaded (no connection: [Errno 111] Connection refused)" in message
    assert f"put it into {own_cache}, or set data.path; data=phantom needs no download" in message
    assert "\n" not in message


def test_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(medmnist, "RECORD_URL", "http://no-such-host.invalid")
    monkeypatch.setattr(medmnist, "NUM_RETRIES", 0)
    with pytest.raises(DataError, match=r"downloaded \(no connection: .*data=phantom needs"):
        load_pneumoniamnist(config(download=True))


def test_a_cache_that_cannot_be_written(stub: Stub, body: bytes, own_cache: Path) -> None:
    stub.answers = [(200, body, len(body))]
    own_cache.write_text("a file stands where the folder should")
    with pytest.raises(DataError, match=r"cannot be written to .*: set LUNGAN_CACHE to a folder"):
        load_pneumoniamnist(config(download=True))


def test_the_real_data_are_the_reports(real_data_path: Path) -> None:
    images = load_pneumoniamnist(config(path=str(real_data_path)))
    assert np.bincount(images.splits).tolist() == [4708, 524, 624]
    assert len(images.select(["train", "val"], ["pneumonia"])) == 3883
    by_split = [
        [len(images.select([split], [name])) for name in images.class_names]
        for split in images.split_names
    ]
    assert by_split == [[1214, 3494], [135, 389], [234, 390]]
    pneumonia = images.select(["train"], ["pneumonia"]).images
    assert len({image.tobytes() for image in pneumonia}) == 3477
