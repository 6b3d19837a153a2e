"""Train a network: python scripts/train.py dataset=glas"""

import sys
from functools import partial

from medt.cli.run import run

main = partial(run, "train")

if __name__ == "__main__":
    sys.exit(main())
