"""Files of tensors are looked through before PyTorch reads them."""

from __future__ import annotations

import io
import pickletools
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from medt.errors import UserError
from medt.io import pickles
from medt.io.files import read_tensors

ZIPPED = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "older format"])
ENDLESS, SHARED = (
    b"K\x01" + b"".join(b"q%ch%c\x86" % (i, i) for i in range(count)) for count in (60, 15)
)
BEGIN, END = b"\x80\x02", b"."
HOSTILE = {
    "a key of endless tuples": (b"}" + ENDLESS + b"K\x01s", "nests tuples"),
    "a key of shared tuples": (b"}" + SHARED + b"K\x01s", "keys that are neither"),
    "a deep key": (b"})" + b"\x85" * 1_000_000 + b"K\x01s", "nests tuples"),
    "one of several keys": (b"}(K\x01K\x02" + SHARED + b"K\x01u", "keys that are neither"),
    "a key that hashes alike": (b"}\x8a\x09" + bytes(8) + b"\x01K\x01s", "keys that are neither"),
    "items of an ordered dict": (
        b"ccollections\nOrderedDict\n]" + SHARED + b"K\x01\x86a\x85R",
        "calls 'collections OrderedDict'",
    ),
    "the state of an ordered dict": (
        b"ccollections\nOrderedDict\n)R]" + SHARED + b"K\x01\x86ab",
        "changes an object",
    ),
    "a set": (b"cbuiltins\nset\n]" + SHARED + b"a\x85R", "calls 'builtins set'"),
    "a counter": (b"ccollections\nCounter\n]" + SHARED + b"a\x85R", "calls 'collections Counter'"),
    "bytes without end": (b"cbuiltins\nbytearray\nJ\x00\x00\x00\x40\x85R", "calls 'builtins byte"),
    "the name of a storage": (b"(X\x07\x00\x00\x00storage" + SHARED + b"tQ", "name of a storage"),
    "operations without end": (b"]" + b"Na" * 1_000_000, "more than 2,000,000"),
    "a new object": (b"ctorch\nTensor\n)\x81", "uses NEWOBJ"),
}


def write(path: Path, body: bytes, zipped: bool) -> Path:
    """A file of PyTorch whose pickle is another."""
    content = io.BytesIO()
    torch.save({}, content, _use_new_zipfile_serialization=zipped)
    if not zipped:
        path.write_bytes(content.getvalue().replace(b"}q\x00.", body + END))
        return path
    with zipfile.ZipFile(content) as plain, zipfile.ZipFile(path, "w") as changed:
        for name in plain.namelist():
            own = name.endswith("data.pkl")
            changed.writestr(name, BEGIN + body + END if own else plain.read(name))
    return path


@pytest.mark.seconds
@ZIPPED
@pytest.mark.parametrize("name", HOSTILE)
def test_a_pickle_that_takes_long_is_refused_at_once(
    tmp_path: Path, name: str, zipped: bool
) -> None:
    body, reason = HOSTILE[name]
    path = write(tmp_path / "evil.pt", body, zipped)
    script = (
        "import sys, resource; from medt.io.files import read_tensors;"
        "resource.setrlimit(resource.RLIMIT_CPU, (40, 40)); read_tensors(sys.argv[1], 'checkpoint')"
    )
    if zipped and name in ("a key of endless tuples", "a deep key"):  # these end who reads them
        ended = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True)
        assert "evil.pt is damaged or not a checkpoint: it " in ended.stderr, ended.stderr[-500:]
    with pytest.raises(UserError, match=rf"evil\.pt is damaged or not a checkpoint: .*({reason})"):
        read_tensors(path, "checkpoint")


@pytest.mark.parametrize("place", range(5))
def test_every_pickle_of_the_older_format_is_looked_through(tmp_path: Path, place: int) -> None:
    content = io.BytesIO()
    torch.save({}, content, _use_new_zipfile_serialization=False)
    parts = [BEGIN + part for part in content.getvalue().split(BEGIN)[1:]]
    assert len(parts) == 5
    parts[place] = BEGIN + b"}" + SHARED + b"K\x01s" + END
    (tmp_path / "evil.pt").write_bytes(b"".join(parts))
    with pytest.raises(UserError, match=r"evil\.pt is damaged or not a checkpoint: it"):
        read_tensors(tmp_path / "evil.pt", "checkpoint")


@ZIPPED
def test_what_torch_saves_is_read(tmp_path: Path, zipped: bool) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 3, 8, 8)).sum().backward()
    optimizer.step()
    content: dict[str, Any] = {
        "weights": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "parameter": nn.Parameter(torch.ones(2)),
        "others": [torch.ones(2, dtype=d) for d in (torch.bfloat16, torch.half, torch.bool)],
        "view": torch.arange(9.0)[3:5],
        "random": torch.get_rng_state(),
        "plain": {"a": (1, 2.5, None, True, "ä", 2**40, -1), 3: [[], {}, ()]},
        "size": torch.ones(2, 3).shape,
        "device": torch.device("cpu"),
    }
    if zipped:  # PyTorch itself does not read it in the other format
        content["16 bit"] = torch.ones(2, dtype=torch.uint16)
    torch.save(content, tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    read = read_tensors(tmp_path / "a.pt", "checkpoint")
    assert read.keys() == content.keys()
    assert read["plain"] == content["plain"]
    assert read["size"] == (2, 3)
    assert torch.equal(read["view"], content["view"])
    weights: dict[str, Tensor] = read["weights"]
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())
    model.load_state_dict(weights)
    optimizer.load_state_dict(read["optimizer"])


@pytest.mark.seconds
def test_a_large_training_is_far_from_the_bound(tmp_path: Path) -> None:
    weights = {f"layer{i}.weight": torch.ones(1) for i in range(5000)}
    moments = {i: {"step": torch.ones(1), "exp_avg": torch.ones(1)} for i in range(5000)}
    torch.save({"weights": weights, "optimizer": moments}, tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "a.pt") as file:
        operations = list(pickletools.genops(file.read("a/data.pkl")))
    assert 3 * len(operations) < pickles.MOST_OPERATIONS
    assert len(read_tensors(tmp_path / "a.pt", "checkpoint")["weights"]) == 5000
