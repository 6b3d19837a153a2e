"""Rules of the repository that no linter knows."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "medt"
MODULES = sorted(PACKAGE.rglob("*.py"))
MAX_LINES = 450

# A file imports from medt only its own folder and what stands above it in this list.
ORDER = (
    "errors",
    "shipped",
    "interruption",
    "io",
    "signatures",
    "transform_targets",
    "targets",
    "drawing",
    "ops",
    "processes",
    "metrics",
    "losses",
    "data",
    "models",
    "checkpoint",
    "weights",
    "inference",
    "evaluation",
    "training",
    "check",
    "build",
    "compare",
    "report",
    "export",
    "benchmark",
    "config",
    "face",
    "cli",
)


def part(path):
    """The entry of the order that a module belongs to."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def read(path):
    return path.read_text(encoding="utf-8")


def imports(path):
    """Full names of what a module imports, wherever in the file it does."""
    for node in ast.walk(ast.parse(read(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: line {node.lineno} is a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def importers(*packages):
    """The modules that import one of these packages."""
    return {
        path.relative_to(PACKAGE).as_posix()
        for path in MODULES
        if any(name.split(".")[0] in packages for name in imports(path))
    }


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_go_one_way(path):
    if path == PACKAGE / "__init__.py":
        return  # its one import is lazy, inside `load`
    own = part(path)
    assert own in ORDER, f"{own} has no place in the order"
    allowed = ORDER[: ORDER.index(own) + 1]
    ours = [[*name.split("."), ""] for name in imports(path) if name.split(".")[0] == "medt"]
    assert [name for name in ours if name[1] not in (*allowed, "")] == []


def test_the_package_itself_imports_its_parts_only_inside_functions():
    tree = ast.parse(read(PACKAGE / "__init__.py"))
    found = [
        ast.unparse(node) for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    assert [statement for statement in found if "medt" in statement] == []


def test_only_the_config_and_the_commands_know_hydra():
    knowing = importers("hydra", "omegaconf")
    assert {path for path in knowing if not path.startswith(("config/", "cli/"))} == set()


def test_only_the_augmentation_knows_albumentations():
    knowing = importers("albumentations")
    assert knowing
    assert {path for path in knowing if not path.startswith("data/augmentation/")} == set()


@pytest.mark.parametrize(
    ("call", "home"),
    [("Console(", "console.py"), ("csv.writer(", "text.py"), ("csv.DictWriter(", "text.py")],
)
def test_text_leaves_by_one_place(call, home):
    """Elsewhere nobody would see to escape sequences and formulas in names."""
    files = [*MODULES, *(ROOT / "scripts").glob("*.py")]
    using = {path for path in files if re.search(rf"(?<!\w){re.escape(call)}", read(path))}
    assert using <= {PACKAGE / "io" / home}


def test_no_file_is_longer_than_can_be_read_at_a_sitting():
    files = [
        path for folder in ("medt", "scripts", "tests") for path in (ROOT / folder).rglob("*.py")
    ]
    lines = {path.relative_to(ROOT): len(path.read_bytes().splitlines()) for path in files}
    assert {path: count for path, count in lines.items() if count > MAX_LINES} == {}


def test_the_config_does_not_import_torch():
    """So that --help answers at once."""
    code = "import sys, medt, medt.config, medt.cli.run; print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"
