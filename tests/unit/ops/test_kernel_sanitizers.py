"""The C++ kernel under AddressSanitizer and UndefinedBehaviorSanitizer, in a program of its own."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("kernel_program.cpp")
KERNEL = Path(__file__).parents[3] / "medt" / "ops" / "kernel"
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fopenmp"]
# As setup.py has them, which cannot be imported, but for -O3: -Og keeps the accesses as they are
# written and compiles twice as fast as -O1.
FLAGS = ["-std=c++17", "-Og", "-g1", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math"]
INSTRUCTION_SETS = {"baseline": []}
if platform.machine() in ("x86_64", "AMD64"):
    avx2 = ["-mavx2", "-mfma"]
    avx512 = ["-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl"]
    INSTRUCTION_SETS["avx2"] = avx2
    INSTRUCTION_SETS["avx512"] = [*avx2, *avx512, "-mprefer-vector-width=512"]
OPTIONS = {
    # Memory that nobody has set reads as NaN, which the program's checks find in the results.
    "ASAN_OPTIONS": "max_malloc_fill_size=1000000000:malloc_fill_byte=255",
    "UBSAN_OPTIONS": "print_stacktrace=1",
    "OMP_WAIT_POLICY": "passive",  # threads that spin between passes would double the time
}


def run(*command: str | Path, timeout: float = 120, **more: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, **OPTIONS, **more}
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=timeout, check=False
    )


def build(*arguments: str | Path) -> None:
    done = run("g++", *SANITIZERS, *FLAGS, *arguments)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program with every instruction set, compiled once."""
    if shutil.which("g++") is None:
        pytest.skip("there is no g++")
    folder = tmp_path_factory.mktemp("sanitizers")
    empty = folder / "empty.cpp"
    empty.write_text("int main() {}\n")
    linked = run("g++", *SANITIZERS, empty, "-o", folder / "empty")
    if linked.returncode or run(folder / "empty").returncode:
        pytest.skip(f"g++ has no sanitizers here: {linked.stderr.strip()[-200:]}")
    objects = [folder / f"{name}.o" for name in INSTRUCTION_SETS]
    for target, (name, flags) in zip(objects, INSTRUCTION_SETS.items(), strict=True):
        chosen = [*flags, f"-DMEDT_INSTRUCTION_SET={name}"]
        build(*chosen, "-c", KERNEL / "layer.cpp", "-o", target)
    build(f"-I{KERNEL}", PROGRAM, KERNEL / "dispatch.cpp", *objects, "-o", folder / "program")
    return folder / "program"


@pytest.mark.slow
@pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)
def test_the_sanitizers_find_nothing(program: Path, instruction_set: str) -> None:
    done = run(program, MEDT_KERNEL=instruction_set)
    assert done.returncode == 0, done.stdout + done.stderr
    if not done.stdout.startswith(f"{instruction_set}:"):
        pytest.skip(f"this processor has no {instruction_set}")
