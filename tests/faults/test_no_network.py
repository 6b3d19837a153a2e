"""No script asks the network for anything: training, evaluating, predicting and exporting."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import evaluate
import export
import predict
import pytest
import train
from conftest import TINY, tiny


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever looks up a name or connects anywhere but to a process of its own fails."""
    connect = socket.socket.connect

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("the network was asked for")

    def only_local(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX:
            refuse()
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", only_local)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)
    for name in ("getaddrinfo", "gethostbyname", "create_connection"):
        monkeypatch.setattr(socket, name, refuse)


def test_from_training_to_masks(tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert train.main(tiny(tmp_path, f"run_dir={run}", "dataset.workers=1")) == 0
    assert evaluate.main([f"checkpoint={run}"]) == 0
    images = [f"input={TINY}/images", f"output={tmp_path}/masks", "geojson=true"]
    assert predict.main([f"checkpoint={run}", *images]) == 0
    assert export.main([f"checkpoint={run}", "format=safetensors"]) == 0


def test_the_test_would_notice() -> None:
    with pytest.raises(AssertionError, match="asked for"):
        socket.create_connection(("localhost", 9))
    with socket.socket() as one, pytest.raises(AssertionError, match="asked for"):
        one.connect(("127.0.0.1", 9))
