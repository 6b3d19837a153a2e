"""What a pickle of tensors would do, found out before it is done.

PyTorch's reader with ``weights_only=True`` runs no code of the file, but it hashes what the file
names a key: tuples that share themselves are hashed without end, deeply nested ones overflow the
stack. Here the stack of the pickle is followed with notes in place of values.
"""

from __future__ import annotations

import pickletools
from dataclasses import dataclass, field
from typing import Any, BinaryIO

MOST_OPERATIONS = 2_000_000  # some seconds of reading; 60,000 tensors have as many
MOST_PARTS = 2**17  # values in a tuple, with those in the tuples in it
MOST_PARTS_OF_NAME = 16  # of the tuple that names a storage, which is hashed; torch writes 6
_TEXT = {"BINUNICODE", "SHORT_BINSTRING"}  # the latter of Python 2
_WHOLE = {"BININT", "BININT1", "BININT2"}  # of 32 bit, as longer ones can be made to hash alike
_OTHER = {"NONE", "NEWTRUE", "NEWFALSE", "BINFLOAT", "LONG1"}
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_CALLED = {
    *(f"torch._utils _rebuild_{what}" for what in ("tensor", "tensor_v2", "tensor_v3")),
    *("torch._utils _rebuild_parameter", "torch Size", "torch device"),
}
_ORDERED = "collections OrderedDict"


class HostilePickleError(ValueError):
    """A pickle does what no file of tensors needs; the text says what."""


@dataclass(frozen=True)
class _Note:
    """Of one value: what it is, and how many values it counts as when it is hashed."""

    kind: str
    parts: int = 1


@dataclass
class _Stack:
    """What a pickle has put down, in groups that its marks begin."""

    flat: bool
    groups: list[list[_Note]] = field(default_factory=lambda: [[]])
    memo: dict[int, _Note] = field(default_factory=dict)

    @property
    def top(self) -> list[_Note]:
        return self.groups[-1]

    def put(self, kind: str) -> None:
        self.top.append(_Note(kind))

    def put_tuple(self, members: list[_Note]) -> None:
        parts = 1 + sum(note.parts for note in members)
        if self.flat or parts > MOST_PARTS:
            raise HostilePickleError("it nests tuples where none belong or without end")
        self.top.append(_Note("tuple", parts))

    def group(self) -> list[_Note]:
        """What lies above the last mark, which is taken away."""
        members = self.groups.pop()
        if not self.groups:
            raise IndexError("no mark")
        return members

    def take(self, count: int) -> list[_Note]:
        if count > len(self.top):
            raise IndexError("nothing left")
        kept = len(self.top) - count
        taken = self.top[kept:]
        del self.top[kept:]
        return taken


def check_pickle(file: BinaryIO, flat: bool = False) -> None:
    """Read one pickle to its end and refuse what could take long or overflow.

    Args:
        file: where it begins; left where it ends.
        flat: whether it may hold no tuples.

    Raises:
        HostilePickleError: it hashes anything but text and small whole numbers, calls anything but
            what puts tensors together, or has too many operations.
        Exception: it is no whole pickle.
    """
    stack = _Stack(flat)
    for count, (operation, argument, _) in enumerate(pickletools.genops(file)):
        if count > MOST_OPERATIONS:
            raise HostilePickleError(f"it has more than {MOST_OPERATIONS:,} values")
        _follow(stack, operation.name, argument)


def _follow(stack: _Stack, name: str, argument: Any) -> None:
    if name in _TEXT or name in _WHOLE:
        stack.put("key")
    elif name in _OTHER:
        stack.put("value")
    elif name in ("EMPTY_LIST", "EMPTY_DICT"):
        stack.put("list" if name == "EMPTY_LIST" else "dict")
    elif name == "GLOBAL":
        stack.put(argument)
    elif name in ("BINPUT", "LONG_BINPUT"):
        stack.memo[argument] = stack.top[-1]
    elif name in ("BINGET", "LONG_BINGET"):
        stack.top.append(stack.memo[argument])
    elif name in _TUPLES:
        stack.put_tuple(stack.take(_TUPLES[name]))
    elif name == "TUPLE":
        stack.put_tuple(stack.group())
    elif name == "MARK":
        stack.groups.append([])
    elif name not in ("PROTO", "STOP"):
        _follow_change(stack, name)


def _follow_change(stack: _Stack, name: str) -> None:
    """Of the operations that change a value or make it of others."""
    if name in ("SETITEM", "SETITEMS"):
        items = stack.take(2) if name == "SETITEM" else stack.group()
        if any(note.kind != "key" for note in items[::2]):
            raise HostilePickleError("it has keys that are neither text nor small whole numbers")
    elif name in ("APPEND", "APPENDS"):
        _ = stack.take(1) if name == "APPEND" else stack.group()
    elif name == "BINPERSID":
        (named,) = stack.take(1)
        if named.parts > MOST_PARTS_OF_NAME:
            raise HostilePickleError("it nests tuples in the name of a storage")
        stack.put("storage")
    elif name == "REDUCE":
        _follow_call(stack)
    elif name == "BUILD":
        built, state = stack.take(2)
        if (built.kind, state.kind) != (_ORDERED, "dict"):
            raise HostilePickleError("it changes an object that is no dict")
        stack.top.append(built)
    else:
        raise HostilePickleError(f"it uses {name}, which no file of tensors needs")


def _follow_call(stack: _Stack) -> None:
    called, arguments = stack.take(2)
    if called.kind == _ORDERED and arguments == _Note("tuple"):  # with items it would hash them
        stack.put(_ORDERED)
    elif called.kind in _CALLED and arguments.kind == "tuple":
        stack.put("tensor")
    else:
        raise HostilePickleError(f"it calls {called.kind[:100]!r}, which makes no tensor")
