"""Look for faults in a dataset: python scripts/check_data.py dataset=glas"""

import sys
from functools import partial

from medt.cli.run import run

main = partial(run, "check_data")

if __name__ == "__main__":
    sys.exit(main())
