"""Bring a public dataset into the layout of data/README.md."""

import sys
from functools import partial

from medt.cli.run import run

main = partial(run, "prepare_data")

if __name__ == "__main__":
    sys.exit(main())
