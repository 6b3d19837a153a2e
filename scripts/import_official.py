"""Weights of the official code as a checkpoint of ours: see configs/import_official.yaml."""

import sys
from functools import partial

from medt.cli.run import run

main = partial(run, "import_official")

if __name__ == "__main__":
    sys.exit(main())
