"""Imports point one way, and what a part must do without it does without."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import lungan

PACKAGE = Path(lungan.__file__).parent

LAYERS = (
    ("errors",),
    ("registry", "files", "memory"),
    ("config",),
    ("cli", "data", "device"),
    ("models",),
    ("classifiers", "training"),
    ("scores",),
    ("runs", "tracking"),
    ("generation", "launchers", "results"),
    ("tracking.wandb_report", "contracts", "utility"),
    ("results.report",),
    ("results.__main__", "utility.__main__", "api"),
    ("generate", "report", "score", "search", "train", "upload"),
    ("__main__",),
)
"""A part imports from its own layer and from those before it; a module may have a place of
its own."""

AGAINST = {("lungan.runs.sweep", "lungan.results")}
"""A sweep leaves its tables and figures; it alone looks up, and only when all is done."""

HYDRA = {"hydra", "omegaconf"}
IMPORT_HYDRA = {"lungan.config.compose"}

WITHOUT = {
    "lungan.train": ("torch", "hydra", "omegaconf", "numpy", "pandas", "wandb"),
    "lungan.training": ("hydra", "omegaconf", "wandb", "pandas", "matplotlib"),
    "lungan.scores": ("hydra", "omegaconf", "wandb", "pandas", "matplotlib"),
    "lungan.classifiers": ("hydra", "omegaconf", "wandb", "pandas", "matplotlib"),
    "lungan.models": ("hydra", "omegaconf", "wandb", "pandas", "matplotlib"),
    "lungan.results": ("torch", "torchvision", "hydra", "omegaconf", "wandb"),
    "lungan.data": ("torch", "hydra", "omegaconf", "wandb", "pandas", "matplotlib"),
    "lungan.config": ("torch", "hydra", "omegaconf", "numpy"),
    "lungan.runs.folder": ("torch", "hydra", "omegaconf", "pandas"),
}


def modules() -> list[str]:
    paths = (path.relative_to(PACKAGE.parent) for path in PACKAGE.rglob("*.py"))
    return sorted(".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in paths)


def source(module: str) -> str:
    path = PACKAGE.parent / Path(*module.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return path.read_text(encoding="utf-8")


def imports(text: str) -> Iterator[str]:
    """Every module that a module imports, at once or in a function, but for types' sake."""

    def walk(node: ast.AST) -> Iterator[str]:
        for child in ast.iter_child_nodes(node):
            match child:
                case ast.Import():
                    yield from (alias.name for alias in child.names)
                case ast.ImportFrom():
                    assert not child.level, "imports are absolute"
                    inside = child.module in ("lungan", None)
                    names = [f"{child.module}.{alias.name}" for alias in child.names]
                    yield from names if inside else [str(child.module)]
                case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                    continue
                case _:
                    yield from walk(child)

    return walk(ast.parse(text))


def part(module: str) -> str:
    return module.split(".")[1] if module.startswith("lungan.") else ""


def layer(module: str) -> int:
    """Where its part stands; the package itself, which holds the version only, before all."""
    places = {name: number for number, parts in enumerate(LAYERS) for name in parts}
    own = ".".join(module.split(".")[1:3])
    return places.get(own, places.get(part(module), -1))


def against(module: str, text: str) -> list[str]:
    """What the module imports from later layers."""
    return [
        name
        for name in imports(text)
        if layer(name) > layer(module) and (module, name) not in AGAINST
    ]


def test_every_part_has_its_place() -> None:
    parts = {part(module) for module in modules()} - {"", "__init__"}
    assert parts == {name for names in LAYERS for name in names if "." not in name}


@pytest.mark.parametrize("module", modules())
def test_imports_point_one_way(module: str) -> None:
    text = source(module)
    assert against(module, text) == []
    roots = {name.split(".")[0] for name in imports(text)}
    assert not roots & HYDRA or module in IMPORT_HYDRA


def test_what_may_look_up_does() -> None:
    for module, name in AGAINST:
        assert name in imports(source(module))
    for module in IMPORT_HYDRA:
        assert HYDRA & {name.split(".")[0] for name in imports(source(module))}


@pytest.mark.parametrize(
    "text",
    [
        "import lungan.runs.folder",
        "from lungan.runs import folder",
        "from lungan import runs",
        "def f():\n    from lungan.results.read import collect",
        "if True:\n    import lungan.train",
    ],
)
def test_an_import_against_the_direction_would_be_seen(text: str) -> None:
    assert against("lungan.training.loop", text)
    assert not against("lungan.search", text)


def test_an_import_for_types_is_none() -> None:
    text = "if TYPE_CHECKING:\n    from lungan.runs import folder\nimport lungan.data.images"
    assert list(imports(text)) == ["lungan.data.images"]


BLOCKED = """
import importlib, pkgutil, sys
for name in {without!r}:
    sys.modules[name] = None  # importing it raises ImportError
package = importlib.import_module({name!r})
for module in pkgutil.iter_modules(getattr(package, "__path__", [])):
    if f"{{package.__name__}}.{{module.name}}" not in {composing!r}:
        importlib.import_module(f"{{package.__name__}}.{{module.name}}")
"""


def import_without(name: str, without: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    """Import a module, and a package's modules, in a process where others cannot be imported."""
    return subprocess.run(
        [sys.executable, "-c", BLOCKED.format(name=name, without=without, composing=IMPORT_HYDRA)],
        env=os.environ | {"PYTHONPATH": str(PACKAGE.parent), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


@pytest.mark.parametrize("name", WITHOUT)
def test_a_part_does_without(name: str) -> None:
    done = import_without(name, WITHOUT[name])
    assert done.returncode == 0, done.stderr


def test_a_part_that_did_not_would_be_seen() -> None:
    done = import_without("lungan.results", ("yaml",))
    assert done.returncode == 1
    assert "import of yaml halted" in done.stderr
