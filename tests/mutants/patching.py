"""Bugs planted from outside: attributes of the shipped code replaced for a while, and counted."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Patch:
    """Replaces functions of modules and methods of classes, and puts them back.

    Args:
        spying: Only counts: what is called stays what it was.

    Attributes:
        calls: How often each thing that was replaced has been called.
    """

    spying: bool = False
    calls: Counter[str] = field(default_factory=Counter)
    _undo: list[Callable[[], None]] = field(default_factory=list)

    def replace(self, owner: Any, name: str, planted: Callable[..., Any]) -> None:
        """Plants a function or method.

        Args:
            owner: The module or class.
            name: Of its attribute. It must be the owner's own, so that it is what is called.
            planted: Takes the original first, then what it takes.
        """
        place = f"{owner.__name__}.{name}"
        self.calls[place] = 0
        original: Any = vars(owner)[name]
        getter: Any = original.fget if isinstance(original, property) else original

        @functools.wraps(getter)
        def counted(*args: Any, **kwargs: Any) -> Any:
            self.calls[place] += 1
            return getter(*args, **kwargs) if self.spying else planted(getter, *args, **kwargs)

        setattr(owner, name, property(counted) if isinstance(original, property) else counted)
        self._undo.append(lambda: setattr(owner, name, original))

    def undo(self) -> None:
        """Puts everything back, the last first."""
        while self._undo:
            self._undo.pop()()


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One bug.

    Attributes:
        name: For people and commands.
        story: What the programmer did, and thought.
        plant: Plants it.
    """

    name: str
    story: str
    plant: Callable[[Patch], None]

    @contextmanager
    def planted(self, *, spying: bool = False) -> Iterator[Patch]:
        """The bug is in the shipped code for the length of the block.

        Args:
            spying: It is not, but what it would replace is watched.
        """
        patch = Patch(spying)
        try:
            self.plant(patch)
            yield patch
        finally:
            patch.undo()
