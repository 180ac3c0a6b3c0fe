"""A worker's jobs in control groups: ``python -m tests.integration.delegated FOLDER JOB…``.

Joins the group and divides it as a worker does, runs the jobs there, and says what became of them.
"""

import json
import sys
from pathlib import Path

from tenure.worker.cgroup import Groups, NotDelegated, take_over
from tests.unit.worker.executor.bench import bench

CONFINED = "tests.unit.worker.confined"


def main(folder: str, *names: str) -> None:
    """Entry point."""
    (Path(folder) / "cgroup.procs").write_text("0")
    try:
        groups = take_over()
    except NotDelegated:
        # It has no controller: groups can be made and ended all the same.
        groups = Groups(Path(folder), frozenset())
    said: dict[str, list[str]] = {}
    with bench(*names, slots=1, module=CONFINED, groups=groups) as pool:
        for name in names:
            result = pool.result(name)
            message = result.fault.message if result.fault is not None else ""
            said[name] = [result.outcome.name, message, result.result.hex()]
    sys.stdout.write(json.dumps(said))


if __name__ == "__main__":
    main(*sys.argv[1:])
