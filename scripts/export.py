"""A file for other programs: python scripts/export.py checkpoint=FILE format=onnx"""

import sys
from functools import partial

from medt.cli.run import run

main = partial(run, "export")

if __name__ == "__main__":
    sys.exit(main())
