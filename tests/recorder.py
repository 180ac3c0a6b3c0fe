"""Keeps how the tests of the fault table came out, for ``docs/reliability.md``.

Loaded by ``conftest``. With RECORD_FAULTS=FILE in the environment, each test that carries the
marker ``fault`` is noted there with its outcome, the day and the commit; what the file already says
of other tests stays.
"""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.revision import commit

#: Where to write; unset: nowhere.
VARIABLE = "RECORD_FAULTS"


class FaultRecorder:
    """Notes outcomes while tests run.

    Args:
        path: The file; made if it is not there.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._found: dict[str, dict[str, Any]] = {}
        self._marked: set[str] = set()
        self._commit = commit()

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Remember who carries the marker."""
        self._marked = {item.nodeid for item in items if item.get_closest_marker("fault")}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take one phase of one test: the worst of its phases is its outcome."""
        if report.nodeid not in self._marked or (report.when != "call" and report.passed):
            return
        # One row for all the parameters of a test.
        name = report.nodeid.partition("[")[0]
        row = self._found.setdefault(name, {"outcome": "passed", "cases": 0, "seconds": 0.0})
        row["cases"] += report.when == "call"
        row["seconds"] = round(row["seconds"] + report.duration, 2)
        row["date"] = datetime.now(UTC).date().isoformat()
        row["commit"] = self._commit
        if not report.passed:
            row["outcome"] = report.outcome

    def pytest_sessionfinish(self) -> None:
        """Write what was found over what was known."""
        known = json.loads(self._path.read_text("utf-8")) if self._path.exists() else {}
        known |= self._found
        self._path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(dict(sorted(known.items())), indent=1)
        self._path.write_text(text + "\n", "utf-8")


def install(config: pytest.Config) -> None:
    """Start to record if somebody asked for it."""
    if path := os.environ.get(VARIABLE):
        config.pluginmanager.register(FaultRecorder(Path(path)), "fault-recorder")
