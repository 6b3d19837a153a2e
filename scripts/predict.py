"""Masks for images: python scripts/predict.py checkpoint=FILE input=FILE_OR_FOLDER output=FOLDER"""

import sys
from functools import partial

from medt.cli.run import run

main = partial(run, "predict")

if __name__ == "__main__":
    sys.exit(main())
