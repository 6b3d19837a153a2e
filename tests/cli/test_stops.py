"""Signals and closed terminals: a training saves, everything else leaves nothing half-written."""

from __future__ import annotations

import fcntl
import os
import pty
import shutil
import signal
import subprocess
import sys
import termios
from collections.abc import Callable
from functools import partial
from pathlib import Path

import check_data
import compare
import evaluate
import export
import predict
import prepare_data
import pytest
import train
from conftest import QUICK, tiny, tiny_dataset

from medt.checkpoint import load_checkpoint
from medt.training.trainer import Trainer

OTHERS = [signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU]


def send_in_step(monkeypatch: pytest.MonkeyPatch, *numbers: int) -> None:
    """Send this process signals, one after the other, in its first optimizer step."""
    step = Trainer.step

    def interrupted(self: Trainer, cases: list[str]) -> float:
        norm = step(self, cases)
        if self.state.step == 1:
            for number in numbers:
                os.kill(os.getpid(), number)
        return norm

    monkeypatch.setattr(Trainer, "step", interrupted)


@pytest.mark.parametrize(
    "numbers",
    [
        *([number] for number in OTHERS),
        [signal.SIGHUP, signal.SIGHUP],  # of the terminal, and of the shell that hands it on
        [signal.SIGUSR1, signal.SIGTERM],  # a scheduler's warning, and its end
        [signal.SIGTERM, signal.SIGHUP],  # a session that is shut down
    ],
    ids=lambda numbers: "+".join(signal.Signals(n).name for n in numbers),
)
def test_a_training_saves_and_ends_with_the_code_of_the_first_signal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], numbers
) -> None:
    before = [signal.getsignal(number) for number in numbers]
    send_in_step(monkeypatch, *numbers)
    given = tiny(tmp_path, f"run_dir={tmp_path}/run", "trainer.batch_size=2", "check=false")
    assert train.main(given) == 128 + numbers[0]
    saved = load_checkpoint(tmp_path / "run/checkpoints/last.pt").training
    assert saved is not None
    assert saved["step"] == 1
    assert capfd.readouterr().err.count("stopping after this step, then saving") == 1
    assert [signal.getsignal(number) for number in numbers] == before


def test_nohup_keeps_ignoring_the_hangup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        send_in_step(monkeypatch, signal.SIGHUP)
        assert train.main(tiny(tmp_path, f"run_dir={tmp_path}/run", "check=false")) == 0
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def start(
    tmp_path: Path, epochs: int, output: int, prepare: Callable[[], object]
) -> subprocess.Popen[bytes]:
    """A training in a session of its own that prints to the file descriptor `output`."""
    tiny_dataset()
    more = ("check=false", f"trainer.epochs={epochs}", QUICK)
    given = tiny(tmp_path, f"run_dir={tmp_path}/run", *more)
    return subprocess.Popen(
        [sys.executable, train.__file__, *given],
        stdin=output,
        stdout=output,
        stderr=output,
        start_new_session=True,
        preexec_fn=prepare,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "300"},
    )


def code_of(process: subprocess.Popen[bytes]) -> int:
    """Its exit code; it does not outlive the test."""
    try:
        return process.wait(timeout=300)
    finally:
        process.kill()


def read_until(descriptor: int, text: bytes) -> None:
    said = b""
    while text not in said:
        more = os.read(descriptor, 4096)
        assert more, said
        said += more


def takes_terminal() -> None:
    """Make standard input the terminal of this session, which is hung up with it."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def ignores_hangup() -> None:
    takes_terminal()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


@pytest.mark.parametrize(
    "controlling",
    [True, pytest.param(False, marks=pytest.mark.slow)],
    ids=["terminal", "only its output"],
)
def test_a_terminal_that_is_closed_is_a_hangup_and_the_run_goes_on(
    tmp_path: Path, controlling: bool
) -> None:
    ours, theirs = pty.openpty()
    process = start(tmp_path, 1000, theirs, takes_terminal if controlling else lambda: None)
    os.close(theirs)
    read_until(ours, b"epoch 2/1000")
    os.close(ours)
    assert code_of(process) == 128 + signal.SIGHUP
    saved = load_checkpoint(tmp_path / "run/checkpoints/last.pt").training
    assert saved is not None
    log = (tmp_path / "run/train.log").read_text()
    assert "and saved" in log
    assert "Traceback" not in log
    epochs = saved["epoch"] + 1
    more = ["resume_force=true", f"trainer.epochs={epochs}"]
    assert train.main([f"resume={tmp_path}/run", *more]) == 0


def test_a_closed_terminal_does_not_end_what_ignores_hangups(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    process = start(tmp_path, 4, theirs, ignores_hangup)
    os.close(theirs)
    read_until(ours, b"epoch 1/4")
    os.close(ours)
    assert code_of(process) == 0
    assert "epoch 4/4" in (tmp_path / "run/train.log").read_text()


def test_a_pipe_that_nobody_reads_any_more_is_a_hangup(tmp_path: Path) -> None:
    ours, theirs = os.pipe()
    process = start(tmp_path, 1000, theirs, lambda: None)
    os.close(theirs)
    read_until(ours, b"epoch 1/1000")
    os.close(ours)
    assert code_of(process) == 128 + signal.SIGHUP
    assert (tmp_path / "run/checkpoints/last.pt").is_file()


@pytest.mark.parametrize(
    ("script", "number"),
    [
        ("predict", signal.SIGINT),
        ("predict", signal.SIGTERM),
        ("predict", signal.SIGHUP),
        ("evaluate", signal.SIGINT),
        ("prepare_data", signal.SIGTERM),
        ("check_data", signal.SIGHUP),
        ("export", signal.SIGINT),
        ("compare", signal.SIGTERM),
    ],
)
def test_other_scripts_end_in_one_line_with_nothing_half_written(
    tmp_path: Path,
    tiny_run: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    script: str,
    number: int,
) -> None:
    run = shutil.copytree(tiny_run, tmp_path / "run")
    (out := tmp_path / "out").mkdir()
    images, dataset = tiny_dataset()
    commands = {
        "predict": partial(
            predict.main, [f"checkpoint={run}", f"input={images}/images", f"output={out}"]
        ),
        "evaluate": partial(evaluate.main, [f"checkpoint={run}"]),
        "prepare_data": partial(
            prepare_data.main, ["dataset=synthetic", f"dataset.root={out}/made", "dataset.size=32"]
        ),
        "check_data": partial(check_data.main, [*dataset, f"output={out}"]),
        "export": partial(
            export.main, [f"checkpoint={run}", "format=safetensors", f"output={out}"]
        ),
        "compare": partial(compare.main, [str(run), f"output={out}"]),
    }
    capsys.readouterr()
    sync = os.fsync

    def interrupted(descriptor: int) -> None:  # a file is there under its temporary name
        monkeypatch.setattr(os, "fsync", sync)
        os.kill(os.getpid(), number)

    monkeypatch.setattr(os, "fsync", interrupted)
    before = set(run.rglob("*"))
    assert commands[script]() == 128 + number
    said = capsys.readouterr().err.splitlines()[-1]
    name = signal.Signals(number).name
    assert said == ("interrupted" if name == "SIGINT" else f"stopped by {name}")
    # The rows of predict's table are appended, each of them whole.
    left = {path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".lock"}
    assert left <= {*before, out / "summary.csv"}


@pytest.mark.slow
def test_a_dry_run_leaves_no_worker_behind(tmp_path: Path) -> None:
    script = tmp_path / "dry_run.py"
    script.write_text(DRY_RUN)
    tiny_dataset()
    given = tiny(tmp_path, "dry_run=true", "check=false", "dataset.workers=2", QUICK)
    with subprocess.Popen(
        [sys.executable, str(script), str(Path(train.__file__).parent), *given],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "a batch is there\n"
        process.send_signal(signal.SIGTERM)
        _, error = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert error == "stopped by SIGTERM\n"
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)


DRY_RUN = """
import signal, sys
sys.path.insert(0, sys.argv.pop(1))
import train
from medt.training import dry_run

def waiting(trainer):
    next(iter(trainer.loader))
    print("a batch is there", flush=True)
    signal.pause()

dry_run._step_seconds = waiting
sys.exit(train.main())
"""
