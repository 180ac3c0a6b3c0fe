"""Jobs that are given and give back what cannot be, in each executor."""

import os
import threading
from typing import Any

from tenure.client import job


class Bomb:
    """A codec that does not survive what it is given."""

    content_type = "application/vnd.tests.bomb"
    version = 1

    def encode(self, data: object) -> bytes:
        return b"harmless"

    def decode(self, payload: bytes) -> object:
        if payload == b"harmful":
            os.abort()
        return [[0], {}]


@job(name="defuse_in_child", executor="process", codec=Bomb())
def defuse_in_child(value: int) -> None:
    """Takes what kills its decoder."""


@job(name="take")
def take(value: Any) -> str:
    """Takes anything."""
    return type(value).__name__


@job(name="take_async")
async def take_async(value: Any) -> str:
    """The same in the loop."""
    return type(value).__name__


@job(name="take_in_child", executor="process")
def take_in_child(value: Any) -> str:
    """The same in a child."""
    return type(value).__name__


@job(name="take_rows")
def take_rows(rows: list[dict[str, int]]) -> int:
    """Takes what has parts."""
    return len(rows)


@job(name="take_rows_async")
async def take_rows_async(rows: list[dict[str, int]]) -> int:
    """The same in the loop."""
    return len(rows)


@job(name="take_rows_in_child", executor="process")
def take_rows_in_child(rows: list[dict[str, int]]) -> int:
    """The same in a child."""
    return len(rows)


@job(name="give")
def give(kind: str) -> object:
    """Gives back what cannot travel."""
    match kind:
        case "lock":
            return threading.Lock()
        case "much":
            return b"x" * (300 * 1024)
        case "deep":
            return _deep()
        case "endless":
            endless: list[object] = []
            endless.append(endless)
            return endless
        case "wide":
            return 1 << 70
        case _:
            return kind


@job(name="give_async")
async def give_async(kind: str) -> object:
    """The same in the loop."""
    return give.fn(kind)


@job(name="give_in_child", executor="process")
def give_in_child(kind: str) -> object:
    """The same in a child."""
    return give.fn(kind)


def _deep() -> list[object]:
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    return deep
