"""What takes long to make and is needed again and again, kept in bounded memory."""

from collections.abc import Hashable
from typing import Final, Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

#: Of one memo: some ten thousand kinds of jobs.
_BYTES_MAX: Final = 16 * 1024 * 1024
#: What a value takes beyond what is said of it.
_ENTRY_BYTES: Final = 1_024


class Memo(Generic[K, V]):
    """Values by their keys. When they are too much all are forgotten, to be made anew."""

    __slots__ = ("_bytes", "_known", "get")

    def __init__(self) -> None:
        self._known: dict[K, V] = {}
        self._bytes = 0
        #: The value of a key; None: it is not known.
        self.get = self._known.get

    def put(self, key: K, value: V, size: int) -> V:
        """Keeps a value of about so many bytes; gives it back."""
        self._bytes += size + _ENTRY_BYTES
        if self._bytes > _BYTES_MAX:
            self._known.clear()
            self._bytes = size + _ENTRY_BYTES
        self._known[key] = value
        return value

    def __len__(self) -> int:
        return len(self._known)
