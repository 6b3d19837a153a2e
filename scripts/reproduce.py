"""Train and score the networks of a table: python scripts/reproduce.py table=glas"""

import sys
from functools import partial

from medt.cli.run import run

main = partial(run, "reproduce")

if __name__ == "__main__":
    sys.exit(main())
