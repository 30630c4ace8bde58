"""Images a second of the Inception path: lungan, torch-fidelity and torchvision as it comes.

    python benchmarks/score_throughput.py [--num-images 32] [--rounds 5] [--json FILE]

Weights are random, since speed does not depend on them. Every path starts from uint8 images and
ends at features and logits. Paths take turns within each round, so that other load on the machine
falls on all of them; the table gives the fastest round, the least disturbed, and the median.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lungan.classifiers.vision import torchvision
from lungan.device import native_dtype
from lungan.scores import imagenet
from lungan.scores.weights import find_inception

LUNGAN, FIDELITY, EAGER = "lungan", "torch-fidelity", "torchvision"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], epilog="example: %(prog)s --num-images 32 --rounds 5"
    )
    parser.add_argument("--num-images", type=int, default=32, help="images a round and path")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, default=28, help="height and width of the images")
    parser.add_argument("--channels", type=int, default=1, choices=(1, 3))
    parser.add_argument("--batch-size", type=int, default=32, help="of the two other paths")
    parser.add_argument("--threads", type=int, default=0, help="0: torch's own choice")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    figures = measure(options)
    print_table(figures)
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


def measure(options: argparse.Namespace) -> dict[str, Any]:
    device = torch.device(options.device)
    rng = torch.Generator().manual_seed(0)
    shape = (options.num_images, options.channels, options.size, options.size)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=rng)
    with tempfile.TemporaryDirectory() as folder:
        paths = make_paths(Path(folder), device, options.batch_size)
    seconds: dict[str, list[float]] = {name: [] for name in paths}
    for turn in range(options.rounds + 1):
        for name, encode in paths.items():
            started = time.perf_counter()
            encode(images)
            if turn:  # The first turn warms up.
                seconds[name].append(time.perf_counter() - started)
    return {
        "torch": torch.__version__,
        "device": options.device,
        "threads": torch.get_num_threads(),
        "lungan_precision": str(native_dtype(device)).removeprefix("torch."),
        "num_images": options.num_images,
        "rounds": options.rounds,
        "image_shape": list(shape[1:]),
        "images_per_second": {
            name: {
                "fastest": options.num_images / min(times),
                "median": options.num_images / statistics.median(times),
            }
            for name, times in seconds.items()
        },
    }


def make_paths(
    folder: Path, device: torch.device, batch_size: int
) -> dict[str, Callable[[Tensor], object]]:
    """The three paths, each from (N, C, H, W) uint8 images in memory."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    torch.manual_seed(0)
    network = torchvision.models.inception_v3(
        weights=None, transform_input=True, init_weights=False
    ).eval()
    torch.save(network.state_dict(), folder / "torchvision.pth")
    encoder = imagenet.load_inception(
        *find_inception(str(folder / "torchvision.pth")), device, native_dtype(device)
    )

    # torch-fidelity loads a file or downloads one, so it is given its own network's random weights.
    torch.save(fidelity_weights(), folder / "fidelity.pth")
    extractor = FeatureExtractorInceptionV3(
        "inception-v3-compat",
        ["2048", "logits"],
        feature_extractor_weights_path=str(folder / "fidelity.pth"),
    )
    network, extractor = network.to(device), extractor.to(device)

    def batched(run: Callable[[Tensor], object]) -> Callable[[Tensor], None]:
        def encode(images: Tensor) -> None:
            with torch.inference_mode():
                for batch in images.split(batch_size):
                    run(batch.to(device).expand(-1, 3, -1, -1).contiguous())
                if device.type == "cuda":
                    torch.cuda.synchronize(device)

        return encode

    mean = torch.tensor([0.485, 0.456, 0.406], device=device)[:, None, None]
    deviation = torch.tensor([0.229, 0.224, 0.225], device=device)[:, None, None]

    def eager(batch: Tensor) -> object:
        resized = F.interpolate(
            batch.float() / 255, size=(299, 299), mode="bilinear", antialias=True
        )
        return network((resized - mean) / deviation)

    return {
        LUNGAN: lambda images: encoder.encode(images, batch_size=256),
        FIDELITY: batched(extractor),
        EAGER: batched(eager),
    }


def fidelity_weights() -> dict[str, Tensor]:
    """A random state dict of torch-fidelity's network, taken from it just before it loads one."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    taken: dict[str, Tensor] = {}

    class Unloaded(FeatureExtractorInceptionV3):  # type: ignore[misc]
        def load_state_dict(self, _: object) -> None:
            taken.update(self.state_dict())

    with tempfile.NamedTemporaryFile() as file:
        torch.save({}, file.name)
        Unloaded("random", ["2048"], feature_extractor_weights_path=file.name)
    return taken


def print_table(figures: dict[str, Any]) -> None:
    rates = figures["images_per_second"]
    print(
        f"{figures['num_images']} images of {figures['image_shape']}, {figures['rounds']} rounds, "
        f"{figures['device']}, {figures['threads']} threads, lungan in "
        f"{figures['lungan_precision']}, torch {figures['torch']}"
    )
    print(f"{'path':<16}{'fastest':>12}{'median':>12}{'of torch-fidelity':>20}")
    for name, rate in rates.items():
        ratio = rate["fastest"] / rates[FIDELITY]["fastest"]
        print(f"{name:<16}{rate['fastest']:>10.1f}/s{rate['median']:>10.1f}/s{ratio:>19.1f}x")


if __name__ == "__main__":
    main()
