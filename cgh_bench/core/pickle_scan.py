"""The names in a pickle, found by following its stack: nothing is built, imported or called."""

import pickle
import pickletools
import re
from typing import Any, BinaryIO, NamedTuple

_ALLOCATES = re.compile(r"torch\.(\w+\.)*\w*(Tensor|Storage)")
_LARGEST_TUPLE = 1_000_000  # values
_DEEPEST_TUPLE = 100


class _Value(NamedTuple):
    """What the scan knows of a value on a pickle's stack."""

    plain: Any = None
    """A text, a number, a name, or a tuple of them."""
    size: int = 1
    """Values in it; what is in it twice counts twice."""
    depth: int = 0
    """How deep tuples may be nested."""


def scan(file: BinaryIO, limit: int) -> set[str]:
    """The names in one pickle, which ends at its STOP; `file` is left behind it. Follows its stack and runs nothing.

    Raises:
        UnpicklingError: reading it would take time or memory out of proportion to a file of `limit` bytes.
    """
    names: set[str] = set()
    stack: list[_Value] = []
    memo: dict[int, _Value] = {}
    for operation, argument, _ in pickletools.genops(file):
        kind = operation.name
        if "PUT" in kind or kind == "MEMOIZE":
            place = len(memo) if argument is None else int(argument)
            if place > limit:
                raise pickle.UnpicklingError("a memo place beyond the file")
            memo[place] = stack[-1]
        elif "GET" in kind or kind == "DUP":
            stack.append(stack[-1] if argument is None else memo[int(argument)])
        else:
            stack += _result(kind, argument, _taken(operation, stack), limit)
            if kind in ("GLOBAL", "INST", "STACK_GLOBAL"):
                names.add(stack[-1].plain)
    return names


_MARK = _Value("the pickle's mark")


def _taken(operation: pickletools.OpcodeInfo, stack: list[_Value]) -> list[_Value]:
    """What the operation takes from the stack, in order."""
    needed = operation.stack_before
    place = len(stack) - len(needed)
    if pickletools.markobject in needed:
        mark = next((place for place in reversed(range(len(stack))) if stack[place] is _MARK), -1)
        place = mark - needed.index(pickletools.markobject)
    if place < 0:
        raise pickle.UnpicklingError("an empty stack")
    taken = stack[place:]
    del stack[place:]
    return [value for value in taken if value is not _MARK]


def _result(kind: str, argument: Any, taken: list[_Value], limit: int) -> list[_Value]:
    """What the operation leaves on the stack, so far as the scan needs to know it."""
    if kind == "MARK":
        return [_MARK]
    if kind in ("GLOBAL", "INST", "STACK_GLOBAL"):
        name = ".".join(str(v.plain) for v in taken) if kind == "STACK_GLOBAL" else str(argument).replace(" ", ".", 1)
        name = name.replace("__builtin__.", "builtins.").replace("copy_reg.", "copyreg.")  # Python 2's names
        return [_Value(name)]
    if kind.startswith("TUPLE") or kind == "FROZENSET":
        size = 1 + sum(value.size for value in taken)
        depth = 1 + max((value.depth for value in taken), default=0)
        if size > _LARGEST_TUPLE or depth > _DEEPEST_TUPLE:
            raise pickle.UnpicklingError("tuples within tuples without end")
        return [_Value(tuple(value.plain for value in taken), size, depth)]
    if kind in ("REDUCE", "NEWOBJ", "NEWOBJ_EX"):
        _require_cheap(taken[0].plain, taken[1].plain)
    if kind == "BINPERSID" and any(isinstance(each, int) and each > limit for each in taken[0].plain or ()):
        raise pickle.UnpicklingError("a tensor larger than the file")
    if kind in ("STOP", "POP", "POP_MARK", "PROTO", "FRAME"):
        return []
    return [_Value(argument if isinstance(argument, str | int) else None)]


def _require_cheap(called: Any, arguments: Any) -> None:
    """Refuse the calls that torch allows in checkpoints although they take memory or time for nothing."""
    if not isinstance(called, str) or not isinstance(arguments, tuple):
        return
    if called == "torch._tensor._rebuild_from_type_v2" and len(arguments) > 2:
        _require_cheap(arguments[0], arguments[2])
    if called == "_codecs.encode" and arguments[1:] not in (("latin1",), ("latin-1",)):
        raise pickle.UnpicklingError(f"bytes in the encoding {arguments[1:]!r:.40}")
    if _ALLOCATES.fullmatch(called) or (
        called == "builtins.bytearray" and any(isinstance(each, int) for each in arguments)
    ):
        raise pickle.UnpicklingError(f"memory that it has nothing for ({called})")
