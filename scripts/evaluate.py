"""Score a checkpoint: python scripts/evaluate.py checkpoint=runs/.../best.pt split=test"""

import sys
from functools import partial

from medt.cli.run import run

main = partial(run, "evaluate")

if __name__ == "__main__":
    sys.exit(main())
