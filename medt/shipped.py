"""What comes with medt beside its code, and how its commands are typed."""

from __future__ import annotations

import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
REPOSITORY = PACKAGE.parent
# Where each lies in the repository; an installed package has it within itself.
FOLDERS = {"configs": "configs", "splits": "data/splits"}


def shipped(name: str) -> Path:
    """The folder of the configs, or of the splits of published datasets."""
    installed = PACKAGE / name
    return installed if installed.is_dir() else REPOSITORY / FOLDERS[name]


def home() -> Path:
    """Where data and runs lie if nothing else is said.

    The repository for its own scripts, the current folder for the installed command.
    """
    return REPOSITORY if _by_script() else Path.cwd()


def typed(command: str) -> str:
    """How a command is typed: as the one that is running."""
    return f"python scripts/{command}.py" if _by_script() else f"medt {command}"


def _by_script() -> bool:
    """Whether this is a script of the repository, or a program such as pytest that calls one."""
    program = Path(sys.argv[0])
    is_command = program.stem == "medt" or program.absolute().parent == PACKAGE / "cli"
    return (REPOSITORY / "scripts").is_dir() and not is_command
