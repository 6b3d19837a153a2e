"""torchrun with two processes on the CPU: the training is that of a single one."""

from __future__ import annotations

import csv
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import train
from conftest import QUICK, tiny, tiny_dataset

from medt.checkpoint import load_checkpoint

SCRIPTS = Path(train.__file__).parent
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
# One step of plain gradient descent, so that weights tell the gradient; three images of which the
# processes get two and one, and validation cases of which they get one each.
ONE_STEP = [
    *("optimizer=sgd", "optimizer.lr=0.1", "optimizer.weight_decay=0"),
    *("scheduler=constant", "trainer.clip_norm=null", "trainer.gate_epoch=0"),
    *("trainer.epochs=1", "overfit=3", "trainer.precise_norm_cases=0", "check=false"),
]


def torchrun(*overrides: str, script: str | Path = train.__file__) -> subprocess.Popen[str]:
    tiny_dataset()
    return subprocess.Popen(
        [*TORCHRUN, str(script), *overrides],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )


def finished(process: subprocess.Popen[str]) -> str:
    """What it printed; it must have ended well."""
    output, error = process.communicate(timeout=120)
    assert process.returncode == 0, error
    return output


def our_lines(error: str) -> list[str]:
    """What our processes said; torchrun's own lines begin with a letter and the date."""
    ours, _, _ = re.split(r"^(E)\d{4} ", error, maxsplit=1, flags=re.MULTILINE)
    return [line for line in ours.splitlines() if not re.match(r"(\[rank\d\]:)?\[?W\d{4} ", line)]


def last_row(run: Path) -> dict[str, float]:
    *_, row = csv.DictReader((run / "history.csv").open())
    return {key: float(value) for key, value in row.items()}


@pytest.mark.parametrize(
    "overrides",
    [
        ["trainer.batch_size=3", "trainer.sync_norms=true"],
        pytest.param(
            ["trainer.batch_size=2", "overfit=4", "trainer.accumulate=2", "model=unet"],
            marks=pytest.mark.slow,
        ),
        pytest.param(
            [
                *("trainer.batch_size=3", "trainer.sync_norms=true", "model=smp_unet"),
                *("model.encoder=tu-test_efficientnet", "dataset.image_size=64"),
                "optimizer.lr=0.01",  # many norms over few pixels: rounding grows
            ],
            marks=pytest.mark.slow,
        ),
    ],
    ids=[
        "synchronised norms",
        "accumulated, without batch norms",
        "synchronised norms with activations",
    ],
)
def test_gradient_and_scores_are_those_of_one_process(tmp_path: Path, overrides: list[str]) -> None:
    given = [*tiny(tmp_path, *ONE_STEP), *overrides]
    if any(one.startswith("model=") for one in overrides):
        given = [one for one in given if not one.startswith(("model.depths", "model=gated"))]
    process = torchrun(*given, f"run_dir={tmp_path}/two")
    assert train.main([*given, f"run_dir={tmp_path}/one"]) == 0
    output = finished(process)
    assert output.count("epoch 1/1") == 1  # only the first process speaks
    one, two = (
        load_checkpoint(tmp_path / name / "checkpoints/last.pt").training for name in ("one", "two")
    )
    assert one is not None
    assert two is not None
    for name, value in one["model"].items():
        torch.testing.assert_close(two["model"][name], value, rtol=1e-4, atol=2e-6, msg=name)
    alone, together = last_row(tmp_path / "one"), last_row(tmp_path / "two")
    for name in ("train_loss", "train_dice", "gradient_norm", "val_loss", "val_dice", "val_iou"):
        assert together[name] == pytest.approx(alone[name], rel=2e-4), name
    names = [{p.name for p in (tmp_path / name).rglob("*")} for name in ("one", "two")]
    events = [{n for n in found if not n.startswith("events.")} for found in names]
    assert events[0] == events[1]


@pytest.fixture
def running(tmp_path: Path) -> subprocess.Popen[str]:
    """A long training of two processes, into a folder that nobody named, in its second epoch."""
    overrides = tiny(tmp_path, "trainer.batch_size=2", "check=false", QUICK)
    process = torchrun(*overrides, "trainer.epochs=2000")
    assert process.stdout is not None
    while "epoch 2/2000" not in (line := process.stdout.readline()):
        assert line, "the training ended"
    return process


def ranks(process: subprocess.Popen[str]) -> list[int]:
    """The processes that torchrun has started, the first one first."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    if not children.exists():
        pytest.skip("this system does not list the children of a process")
    return [int(number) for number in children.read_text().split()]


def test_a_process_that_dies_ends_the_training_in_one_line(
    running: subprocess.Popen[str],
) -> None:
    started = time.monotonic()
    os.kill(ranks(running)[1], signal.SIGKILL)
    _, error = running.communicate(timeout=90)
    assert time.monotonic() - started < 60
    assert running.returncode != 0
    assert "Signal 9 (SIGKILL)" in error
    assert our_lines(error) == [
        "error: another process of the training failed (torchrun names it below; resume=RUN_DIR "
        "goes on from what was saved)"
    ]


def test_sigterm_saves_and_two_processes_go_on(
    running: subprocess.Popen[str], tmp_path: Path
) -> None:
    running.send_signal(signal.SIGTERM)
    output, _ = running.communicate(timeout=60)
    assert "and saved" in output
    (run,) = (tmp_path / "runs/synthetic").glob("*/*")  # one for both
    saved = load_checkpoint(run / "checkpoints/last.pt").training
    assert saved is not None
    epochs = saved["epoch"] + 1
    more = ["resume_force=true", f"trainer.epochs={epochs}"]
    output = finished(torchrun(f"resume={run}", *more))
    assert f"epoch {epochs}/{epochs}" in output


@pytest.mark.slow
def test_a_batch_with_fewer_images_than_processes_is_refused(tmp_path: Path) -> None:
    given = tiny(tmp_path, f"run_dir={tmp_path}/run", "trainer.batch_size=5", "check=false")
    process = torchrun(*given)
    _, error = process.communicate(timeout=90)
    assert process.returncode == 1
    (line,) = our_lines(error)
    assert "leaves 1 of 6 images for the last batch, but there are 2 processes" in line
    assert not (tmp_path / "run").exists()


@pytest.mark.many_parameters
@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("trainer.epoch=3", "there is no key trainer.epoch "),  # while the config is composed
        (
            f"dataset.root={__file__}",
            "test_several_processes.py is a file",
        ),  # as each reads the data
        ("run_dir=tests", "the run folder tests is not empty"),  # by the first one alone
    ],
)
def test_what_is_refused_is_one_line_of_all_processes(
    tmp_path: Path, override: str, line: str
) -> None:
    process = torchrun(*tiny(tmp_path, "trainer.batch_size=2", "check=false", override))
    output, error = process.communicate(timeout=90)
    assert process.returncode == 1
    assert output == ""
    said = "\n".join(our_lines(error))
    assert re.fullmatch(rf"error: .*{re.escape(line)}.*", said)


SECOND_FAILS = """
import os, sys, train
from medt.data.dataset import SegmentationDataset
from medt.errors import UserError

sample = SegmentationDataset.sample

def failing(self, epoch, index):
    if os.environ["RANK"] == "1" and epoch == 2:
        raise UserError("its disk is gone", "look at the second machine")
    return sample(self, epoch, index)

SegmentationDataset.sample = failing
sys.exit(train.main())
"""


SECOND_IS_SLOW = """
import os, sys, time, train
import medt.cli.train as module

if os.environ["RANK"] == "1":  # it is still importing when the first one fails
    module.train = lambda cfg: time.sleep(60)
sys.exit(train.main())
"""

SECOND_IS_STOPPED = """
import os, signal, sys, time, train
import medt.cli.train as module

def stopped(cfg, others):
    if others.rank == 1:
        os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)

module.train_together = stopped
sys.exit(train.main())
"""


FIRST_IS_LEAVING = """
import os, signal, sys, train
import medt.cli.train as module

def lost(cfg, others):
    if others.rank == 1:
        others.store.wait(["the first is here"])
        os.kill(os.getpid(), signal.SIGKILL)
    others.store.set("the first is here", "")
    try:
        raise RuntimeError("[gloo/transport/tcp/pair.cc] Connection closed by peer")
    finally:  # while it cleans up
        os.kill(os.getpid(), signal.SIGTERM)

module.train_together = lost
sys.exit(train.main())
"""


FILE_FOR_DATA = f"dataset.root={__file__}"
ALL_FOLDS = "dataset.fold=all"


@pytest.mark.many_parameters
@pytest.mark.parametrize(
    ("script", "override", "line"),
    [
        (
            "import sys, train; sys.exit(train.main())",
            ALL_FOLDS,
            r"error: .* trains in one process.*",
        ),
        (SECOND_IS_SLOW, FILE_FOR_DATA, r"error: .*test_several_processes.py is a file.*"),
        (SECOND_FAILS, "trainer.epochs=2", r"error: .*its disk is gone \(look at the second .*"),
        (SECOND_IS_STOPPED, "trainer.epochs=2", "stopped by SIGTERM"),
        (FIRST_IS_LEAVING, "trainer.epochs=2", r"error: another process of the training failed .*"),
    ],
    ids=[
        "all folds",
        "the second is slow",
        "the second fails",
        "the second is stopped",
        "the first is leaving",
    ],
)
def test_one_process_says_why_and_the_others_nothing(
    tmp_path: Path, script: str, override: str, line: str
) -> None:
    path = tmp_path / "changed.py"
    path.write_text(f"import sys; sys.path.insert(0, {str(SCRIPTS)!r})\n{script}")
    given = tiny(tmp_path, f"run_dir={tmp_path}/run", "trainer.batch_size=2", "check=false", QUICK)
    given += ["dataset.folds=2"] if override == ALL_FOLDS else []
    _, error = torchrun(*given, override, script=path).communicate(timeout=90)
    assert re.fullmatch(line, "\n".join(our_lines(error)))
