"""Bring a public dataset into the layout of data/README.md."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from medt.cli.screen import progress
from medt.cli.settings import plain
from medt.data.open import prepare_dataset


def prepare_data(cfg: DictConfig) -> int:
    source = None if cfg.source is None else Path(cfg.source)
    with progress(f"preparing {cfg.dataset.name}") as advance:
        prepared = prepare_dataset(plain(cfg.dataset), source, advance)
    print(prepared.summary())
    return 0
