"""The proxy, as tests see it: doors to open, rules to make and to take back."""

from __future__ import annotations

import itertools
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from tests.chaos.process import Event, Expired, Process, Timeline
from tests.chaos.wire import Drop, Know, Make, Open, Order, Reset, Rule

_REPOSITORY = Path(__file__).resolve().parents[2]
_ANSWER_TIMEOUT_S = 20.0


class Links:
    """A running proxy.

    Args:
        directory: For its log.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.timeline = Timeline()
        self._ids = itertools.count(1)
        self._writing = threading.Lock()
        command = [sys.executable, "-m", "tests.chaos.proxy"]
        environment = {"PYTHONPATH": str(_REPOSITORY)}
        self._process = Process("proxy", command, directory, self.timeline, environment)

    def __enter__(self) -> Self:
        self._said("ready")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.stop()

    def door(self, target: str, address: str) -> int:
        """A port at which a target can be dialled; its address may be dead for now."""
        host, _, port = address.rpartition(":")
        number = next(self._ids)
        return int(self._order(Open(number, target, host, int(port))).fields["port"])

    def know(self, name: str, *, pid: int = 0, address: str = "") -> None:
        """Who dials from this process, or from this address, has this name."""
        self._order(Know(next(self._ids), name, pid, address))

    def make(self, source: str, target: str, **what: Any) -> Rule:
        """A rule from now on; see ``wire.Rule``."""
        number = next(self._ids)
        rule = Rule(name=f"rule-{number}", source=source, target=target, **what)
        self._order(Make(number, rule))
        return rule

    def drop(self, rule: Rule) -> None:
        """Take a rule back. Idempotent."""
        self._order(Drop(next(self._ids), rule.name))

    @contextmanager
    def spoiled(self, source: str, target: str, **what: Any) -> Iterator[Rule]:
        """A rule for as long as the body runs."""
        rule = self.make(source, target, **what)
        try:
            yield rule
        finally:
            self.drop(rule)

    def reset(self, source: str, target: str) -> int:
        """Reset all connections between two; how many there were."""
        return int(self._order(Reset(next(self._ids), source, target)).fields["count"])

    def was_cut(self, rule: Rule) -> bool:
        """Whether a rule with ``cut_after`` has cut."""
        return any(event.fields["rule"] == rule.name for event in self._process.events("cut"))

    def wait_cut(self, rule: Rule, timeout_s: float) -> bool:
        """Whether it cuts in time."""
        return (
            self.timeline.wait(lambda _: True if self.was_cut(rule) else None, timeout_s)
            is not None
        )

    def _order(self, order: Order) -> Event:
        with self._writing:
            self._process.tell(msgspec.json.encode(order).decode())
        return self._said("done", order.id)

    def _said(self, name: str, number: int | None = None) -> Event:
        def look(events: list[Event]) -> Event | None:
            for event in reversed(events):
                if event.name == name and event.fields.get("id") == number:
                    return event
            return None

        found = self.timeline.wait(look, _ANSWER_TIMEOUT_S)
        if found is None:
            raise Expired(f"the proxy did not answer:\n{self._process.log_tail(40)}")
        return found
