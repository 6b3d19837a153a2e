"""The command `medt`, which stands before the name of another: medt train dataset=glas."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import medt
from medt.cli.run import run
from medt.errors import did_you_mean

COMMANDS = {
    "train": "train a network: dataset=glas",
    "evaluate": "score a checkpoint: checkpoint=RUN split=test",
    "predict": "masks for images: checkpoint=RUN input=IMAGES output=MASKS",
    "check_data": "look for faults in a dataset: dataset=glas",
    "prepare_data": "bring a published dataset into the layout: dataset=glas source=ARCHIVE",
    "compare": "runs in one table: RUN_OR_FOLDER ...",
    "reproduce": "train and score the networks of a table: table=glas",
    "export": "a file for other programs: checkpoint=RUN format=onnx",
    "import_official": "weights of the official code: model=medt weights=FILE output=FILE",
    "benchmark": "time, memory and limit of the networks",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that is named first; returns the exit code."""
    given = list(sys.argv[1:] if argv is None else argv)
    name = given[0] if given else "--help"
    if name in COMMANDS:
        return run(name, given[1:])
    if name == "--version":
        print(f"medt {medt.__version__}")
        return 0
    if name not in ("-h", "--help"):
        hint = did_you_mean(name, COMMANDS, "see medt --help")
        print(f"error: there is no command {name} ({hint})", file=sys.stderr)
        return 1
    print("medt COMMAND [group=option] [key=value], where COMMAND is one of\n")
    for command, what in COMMANDS.items():
        print(f"  {command:<16} {what}")
    print("\nmedt COMMAND --help shows its settings.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
