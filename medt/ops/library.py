"""The fused kernel's C interface (`kernel/layer.h`), called on PyTorch's tensors.

The kernel is an optional part of the installation: without a C++ compiler it is absent.
"""

from __future__ import annotations

import ctypes
import functools
import logging
from collections.abc import Sequence
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import torch
from torch import Tensor

from medt.ops.parameters import AttentionParameters

log = logging.getLogger(__name__)

FILE = next(
    (path for s in EXTENSION_SUFFIXES if (path := Path(__file__).parent / f"_kernel{s}").is_file()),
    None,
)
# Parameters with a gradient of their own, in the order of the C structures.
LEARNED = (
    "qkv_weight",
    "qkv_bias",
    "similarity_weight",
    "relative",
    "value_weight",
    "value_bias",
    "position_weight",
    "position_bias",
)


class _Shape(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_int64)
        for name in ("batch", "heads", "channels", "length", "others", "columns", "center")
    ]


class _Strides(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int64) for name in ("batch", "channel", "length", "other")]


class _Parameters(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in LEARNED),
        ("gates", ctypes.c_float * 4),
        ("epsilon", ctypes.c_float),
    ]


class _Statistics(ctypes.Structure):
    _fields_ = [
        (f"{norm}_{moment}", ctypes.c_void_p)
        for norm in ("qkv", "similarity", "value", "position")
        for moment in ("mean", "variance")
    ]


class _Gradients(ctypes.Structure):
    _fields_ = [(name, ctypes.c_void_p) for name in (*LEARNED, "gates")]


def available() -> bool:
    """Whether the kernel is installed; if not, the first call logs it."""
    if FILE is None and not torch.compiler.is_compiling():
        _log_absence()
    return FILE is not None


@functools.cache
def _log_absence() -> None:
    log.warning(
        "the fused kernel is not installed: attention runs in plain PyTorch, which makes MedT "
        "several times slower (to have it, install a C++ compiler and run pip install again)"
    )


@functools.cache
def _loaded() -> ctypes.CDLL:
    if FILE is None:
        raise RuntimeError("the fused kernel is not installed")
    library = ctypes.CDLL(str(FILE))
    library.medt_saved_size.restype = ctypes.c_int64
    library.medt_instruction_set.restype = ctypes.c_char_p
    return library


def instruction_set() -> str:
    """What the kernel uses: avx512, avx2 or baseline; the variable MEDT_KERNEL names a lower one.

    Raises:
        RuntimeError: the kernel is not installed.
    """
    return str(_loaded().medt_instruction_set().decode())


def moment_sizes(parameters: AttentionParameters) -> list[int]:
    """Elements of the mean, and of the variance, of each norm: qkv, similarity, value, position."""
    norms = ["qkv", "similarity", "value"]
    if parameters.relative is not None:
        norms.append("position")
    return [getattr(parameters, f"{norm}_weight").numel() for norm in norms]


def saved_size(size: Sequence[int], parameters: AttentionParameters, along_width: bool) -> int:
    """Floats that `forward` keeps for an input of this (N, C, H, W).

    Counted here as in the kernel's `Saved`, since a compiled network's sizes may be symbols.
    """
    n, _, height, width = size
    length, others = (width, height) if along_width else (height, width)
    lanes = int(_loaded().medt_lanes())
    heads, d = parameters.heads, parameters.head_channels
    strips = heads * ((n * others + lanes - 1) // lanes)

    def padded(count: int) -> int:
        return (count + lanes - 1) // lanes * lanes

    terms = 1 if parameters.relative is None else 2
    total = strips * length * (4 * d + terms * 2 * d + 1) * lanes + padded(2 * heads)
    if parameters.relative is not None:
        total += 2 * (padded(heads * length * d) + padded(heads * length * d * d))
    return total


def forward(
    x: Tensor, parameters: AttentionParameters, along_width: bool, epsilon: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Output, moments of each norm's term before its gate (flat), and what `backward` needs."""
    out = output_like(x)
    moments = x.new_empty(2 * sum(moment_sizes(parameters)))
    saved = x.new_empty(saved_size(x.shape, parameters, along_width))
    contiguous = parameters.map(torch.Tensor.contiguous)
    _call(
        "medt_forward",
        _shape(x.shape, parameters, along_width),
        _parameters(contiguous, epsilon),
        x,
        _strides(x, along_width),
        out,
        _strides(out, along_width),
        _statistics(moments, parameters),
        saved,
    )
    return out, moments, saved


def backward(
    d_out: Tensor,
    parameters: AttentionParameters,
    moments: Tensor,
    saved: Tensor,
    along_width: bool,
    channels_last: bool,
    epsilon: float,
) -> tuple[Tensor, AttentionParameters]:
    """Gradients of the input, in the given memory format, and of the parameters."""
    d_x = input_like(d_out, channels_last)
    gradients = parameters.map(lambda p: torch.empty_like(p, memory_format=torch.contiguous_format))
    contiguous = parameters.map(torch.Tensor.contiguous)
    gates = d_out.new_empty(4) if gradients.gates is None else gradients.gates
    pointers = {name: _pointer(getattr(gradients, name)) for name in LEARNED}
    _call(
        "medt_backward",
        _shape(d_out.shape, parameters, along_width),
        _parameters(contiguous, epsilon),
        _statistics(moments, parameters),
        saved,
        d_out,
        _strides(d_out, along_width),
        d_x,
        _strides(d_x, along_width),
        _Gradients(**pointers, gates=_pointer(gates)),
    )
    return d_x, gradients


def inference(
    x: Tensor, parameters: AttentionParameters, moments: Tensor, along_width: bool, epsilon: float
) -> Tensor:
    """Output with the given moments (flat) of each norm's term; `parameters` has no gates."""
    out = output_like(x)
    contiguous = parameters.map(torch.Tensor.contiguous)
    _call(
        "medt_inference",
        _shape(x.shape, parameters, along_width),
        _parameters(contiguous, epsilon),
        _statistics(moments, parameters),
        x,
        _strides(x, along_width),
        out,
        _strides(out, along_width),
    )
    return out


def output_like(x: Tensor) -> Tensor:
    """An empty output (N, C / 2, H, W) in the memory format of an input (N, C, H, W)."""
    n, channels, height, width = x.shape
    return _empty(x, (n, channels // 2, height, width), is_channels_last(x))


def input_like(d_out: Tensor, channels_last: bool) -> Tensor:
    """An empty gradient of the input from that of the output (N, C, H, W)."""
    n, channels, height, width = d_out.shape
    return _empty(d_out, (n, 2 * channels, height, width), channels_last)


def is_channels_last(x: Tensor) -> bool:
    return not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)


def _empty(like: Tensor, size: tuple[int, ...], channels_last: bool) -> Tensor:
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    return torch.empty(size, dtype=like.dtype, device=like.device, memory_format=memory_format)


def _call(name: str, *arguments: ctypes.Structure | Tensor) -> None:
    converted = [
        _pointer(argument) if isinstance(argument, Tensor) else ctypes.byref(argument)
        for argument in arguments
    ]
    if getattr(_loaded(), name)(*converted, torch.get_num_threads()):
        raise MemoryError(f"{name}: no memory left")


def _pointer(tensor: Tensor | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())


def _shape(size: Sequence[int], parameters: AttentionParameters, along_width: bool) -> _Shape:
    """Of an input or output (N, C, H, W); its C does not matter."""
    n, _, height, width = size
    length, others = (width, height) if along_width else (height, width)
    columns = 0 if parameters.relative is None else parameters.relative.shape[1]
    return _Shape(
        n, parameters.heads, parameters.head_channels, length, others, columns, columns // 2
    )


def _strides(x: Tensor, along_width: bool) -> _Strides:
    n, channel, height, width = x.stride()
    return _Strides(n, channel, width, height) if along_width else _Strides(*x.stride())


def _parameters(parameters: AttentionParameters, epsilon: float) -> _Parameters:
    pointers = {name: _pointer(getattr(parameters, name)) for name in LEARNED}
    gates = [1.0] * 4 if parameters.gates is None else parameters.gates.tolist()
    return _Parameters(**pointers, gates=(ctypes.c_float * 4)(*gates), epsilon=epsilon)


def _statistics(moments: Tensor, parameters: AttentionParameters) -> _Statistics:
    pointers = []
    address = moments.data_ptr()
    for size in moment_sizes(parameters):
        pointers += [address, address + 4 * size]
        address += 8 * size
    return _Statistics(*pointers)
