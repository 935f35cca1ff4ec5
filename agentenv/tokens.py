"""Token ids that grow at their end without being copied."""

from collections.abc import Iterable, Iterator, Sequence
from threading import Lock
from typing import cast, overload

from typing_extensions import override

__all__ = ["TokenIds"]

_lock = Lock()  # two continuations of one state may grow the same ids from two threads


class TokenIds(Sequence[int]):
    """An immutable sequence of token ids; `ids + more` costs as much as `more` is long.

    An episode of many steps sees its own tokens again before every action. Here the longer sequence shares the memory
    of the shorter one, and `extends` tells at once that it goes on with it. It equals the tuple of the same ids.

    Args:
        ids: the ids.
    """

    __slots__ = ("_ids", "_length")

    def __init__(self, ids: Iterable[int] = ()) -> None:
        self._ids: list[int] = [*ids]
        self._length = len(self._ids)

    def __add__(self, more: Iterable[int]) -> "TokenIds":
        """Returns these ids and then `more`."""
        added = tuple(more)
        longer = object.__new__(TokenIds)
        with _lock:
            # Where something was added behind these ids already, the two go apart, and one needs memory of its own.
            shared = self._ids if len(self._ids) == self._length else self._ids[: self._length]
            shared.extend(added)
        longer._ids, longer._length = shared, self._length + len(added)
        return longer

    def __radd__(self, before: Iterable[int]) -> "TokenIds":
        """Returns `before` and then these ids."""
        return TokenIds((*before, *self))

    def extends(self, other: object) -> bool:
        """Whether these ids were made from `other` by adding to it; a quick test that may miss equal beginnings."""
        return isinstance(other, TokenIds) and other._ids is self._ids and other._length <= self._length

    @override
    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[int, ...]: ...
    @override
    def __getitem__(self, index: int | slice) -> int | tuple[int, ...]:
        if isinstance(index, slice):
            start, stop, step = index.indices(self._length)
            if step > 0:
                return tuple(self._ids[start:stop:step])
            return tuple(self._ids[i] for i in range(start, stop, step))
        if not -self._length <= index < self._length:
            msg = f"token index must be in [{-self._length}, {self._length}), got {index}"
            raise IndexError(msg)
        return self._ids[index if index >= 0 else self._length + index]

    @override
    def __iter__(self) -> Iterator[int]:
        return iter(self._ids[: self._length])

    @override
    def __eq__(self, other: object) -> bool:
        if not isinstance(other, TokenIds | tuple):
            return NotImplemented
        ids = cast("TokenIds | tuple[int, ...]", other)
        return len(self) == len(ids) and (self.extends(ids) or tuple(self) == tuple(ids))

    @override
    def __hash__(self) -> int:
        return hash(tuple(self))

    @override
    def __repr__(self) -> str:
        return repr(tuple(self))

    def __reduce__(self) -> tuple[type["TokenIds"], tuple[tuple[int, ...]]]:
        return TokenIds, (tuple(self),)
