"""Training runs in one table, over seeds: python scripts/compare.py RUN_OR_FOLDER ..."""

import sys
from functools import partial

from medt.cli.run import run

main = partial(run, "compare")

if __name__ == "__main__":
    sys.exit(main())
