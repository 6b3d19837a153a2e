"""Bring a public dataset into the layout of data/README.md."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from command import plain, progress, run
from omegaconf import DictConfig


def main(argv: Sequence[str] | None = None) -> int:
    """Prepare as configs/prepare_data.yaml and the overrides in `argv` say."""
    return run(prepare, "prepare_data", argv)


def prepare(cfg: DictConfig) -> int:
    from medt.data.open import prepare_dataset

    source = None if cfg.source is None else Path(cfg.source)
    with progress(f"preparing {cfg.dataset.name}") as advance:
        prepared = prepare_dataset(plain(cfg.dataset), source, advance)
    print(prepared.summary())
    return 0


if __name__ == "__main__":
    sys.exit(main())
