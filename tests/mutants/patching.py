"""Bugs planted from outside: attributes of the shipped code replaced for a while, and counted."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Patch:
    """Replaces functions of modules and methods of classes, and puts them back.

    Attributes:
        calls: How often what was planted has been called.
    """

    calls: int = 0
    _undo: list[Callable[[], None]] = field(default_factory=list)

    def replace(self, owner: Any, name: str, planted: Callable[..., Any]) -> None:
        """Plants a function or method.

        Args:
            owner: The module or class.
            name: Of its attribute. It must be the owner's own, so that it is what is called.
            planted: Takes the original first, then what it takes.
        """
        original: Any = vars(owner)[name]
        getter: Any = original.fget if isinstance(original, property) else original

        @functools.wraps(getter)
        def counted(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            return planted(getter, *args, **kwargs)

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
    def planted(self) -> Iterator[Patch]:
        """The bug is in the shipped code for the length of the block."""
        patch = Patch()
        try:
            self.plant(patch)
            yield patch
        finally:
            patch.undo()
