"""Builds the fused attention kernel and says what belongs to the package; see pyproject.toml."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

KERNEL = Path("medt/ops/kernel")
# -ffast-math would break the exponential, whose rounding must not be folded away.
FLAGS = ["-std=c++17", "-O3", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math", "-g0"]
# The layer is compiled once for each of these; dispatch.cpp chooses when it is loaded.
INSTRUCTION_SETS = {"baseline": []}
if platform.machine() in ("x86_64", "AMD64"):
    avx2 = ["-mavx2", "-mfma"]
    avx512 = ["-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl"]
    INSTRUCTION_SETS["avx2"] = avx2
    INSTRUCTION_SETS["avx512"] = [*avx2, *avx512, "-mprefer-vector-width=512"]
# Apple's compiler has no OpenMP; there the kernel runs on one thread.
OPENMP = [] if sys.platform == "darwin" else ["-fopenmp"]


class BuildKernel(build_ext):
    def build_extension(self, extension: Extension) -> None:
        folder = Path(self.build_temp)
        objects = self.compile(KERNEL / "dispatch.cpp", folder, [])
        for name, flags in INSTRUCTION_SETS.items():
            chosen = [*flags, f"-DMEDT_INSTRUCTION_SET={name}"]
            objects += self.compile(KERNEL / "layer.cpp", folder / name, chosen)
        self.compiler.link_shared_object(
            objects, self.get_ext_fullpath(extension.name), extra_postargs=OPENMP, target_lang="c++"
        )

    def compile(self, source: Path, folder: Path, flags: list[str]) -> list[str]:
        return self.compiler.compile(
            [str(source)], output_dir=str(folder), extra_postargs=[*FLAGS, *OPENMP, *flags]
        )


# Optional: without a compiler the installation succeeds, and medt runs on plain PyTorch.
kernel = Extension("medt.ops._kernel", [str(KERNEL / "layer.cpp")], optional=True)
OUTSIDE = {"medt.configs": "configs", "medt.splits": "data/splits"}
setup(
    packages=[*find_packages(include=["medt*"]), *OUTSIDE],
    package_dir={"": ".", **OUTSIDE},
    ext_modules=[kernel],
    cmdclass={"build_ext": BuildKernel},
)
