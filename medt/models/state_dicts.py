"""Files of weights that other code wrote."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from medt.errors import UserError
from medt.io.files import read_tensors


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a state dict by name, without DataParallel's prefix ``module.``.

    A file that holds the state dict under the key ``state_dict`` or ``model`` is taken too.

    Raises:
        UserError: the file is missing, damaged, or no state dict.
    """
    content = read_tensors(path, "file of a network's weights")
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if (
        not isinstance(content, dict)
        or not content
        or not all(isinstance(value, Tensor) for value in content.values())
    ):
        raise UserError(
            f"{path} holds no state dict", "give a file that torch.save(model.state_dict()) wrote"
        )
    return {str(name).removeprefix("module."): value for name, value in content.items()}
