"""Time, memory and limit of the networks: python scripts/benchmark.py [networks=[medt,unet]]"""

import sys
from functools import partial

from medt.cli.run import run

main = partial(run, "benchmark")

if __name__ == "__main__":
    sys.exit(main())
