"""``python -m tests.chaos --minutes 30 --faults "leader-killed,19" --seed 7``: one chaos run.

Exit code 0: every invariant held. The report is in ``out/chaos-report.md`` and ``.json``.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import signal
import sys
import tempfile
import time
from operator import itemgetter
from pathlib import Path

from tenure.master.election.etcd import OFFICE_TTL_S
from tests.chaos import faults_below  # noqa: F401 - declares its faults
from tests.chaos.arena import Arena
from tests.chaos.faults import FAULTS, chosen
from tests.chaos.measure import measure
from tests.chaos.report import Plan, bars, write
from tests.chaos.rounds import Log, play
from tests.oracles.history import boottime_ms

_log = logging.getLogger("tests.chaos")

_OUT = Path(__file__).resolve().parents[2] / "out"


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--faults", default="", help="names or rows; all if empty")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--open", type=int, default=2_000, help="jobs under way")
    parser.add_argument("--hold-s", type=float, default=7.5, help="a job takes one to two of these")
    parser.add_argument("--office-ttl-s", type=int, default=OFFICE_TTL_S, help="to try another")
    parser.add_argument("--list", action="store_true", help="only show the faults")
    flags = parser.parse_args()
    # However the run is ended, nothing that it started may outlive it.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(2))
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    if flags.list:
        for fault in FAULTS.values():
            rows = ", ".join(map(str, fault.rows))
            print(f"{fault.name:26} rows {rows:8} {fault.inject.__doc__}")
        return 0
    directory = Path(tempfile.mkdtemp(prefix="tenure-chaos-"))
    _log.info("seed %d, logs and histories in %s", flags.seed, directory)
    with Arena(directory, seed=flags.seed, office_ttl_s=flags.office_ttl_s, plans=True) as arena:
        faults = [f for f in chosen(flags.faults) if f.needs not in arena.missing]
        began_ms = boottime_ms()
        arena.start(flags.open, flags.hold_s)
        log = play(
            arena,
            faults,
            until_s=time.monotonic() + flags.minutes * 60,
            running_min=flags.open * 3 // 5,
            pairs=len(faults) > 1,
        )
        clients = [arena.cluster.processes[name] for name in arena.client_names]
        arena.cluster.drain(*clients, timeout_s=180.0)
        arena.cluster.end()
        keep_story(directory / "story.jsonl", arena, log)
        plan = Plan(
            seed=flags.seed,
            minutes=flags.minutes,
            faults=[fault.name for fault in faults],
            missing=arena.missing,
            etcd_version=arena.etcd_version,
            took_s=(boottime_ms() - began_ms) / 1000,
        )
        _log.info("judging")
        measured = measure(arena, log)
    results = bars(plan, log, measured, arena.kills)
    print(write(_OUT, plan, log, measured, arena.kills, results))
    if not all(bar.held for bar in results):
        _log.error("broken: logs and histories stay in %s", directory)
        return 1
    shutil.rmtree(directory)
    return 0


def keep_story(path: Path, arena: Arena, log: Log) -> None:
    """All that was said and done, in order: what a broken run is looked into with."""
    said = [
        {"at_ms": event.at_ms, "process": event.process, **event.fields}
        for event in arena.cluster.timeline.events()
    ]
    done = [
        {
            "at_ms": one.since_ms,
            "until_ms": one.until_ms,
            "fault": one.fault.name,
            "hurt": one.hurt,
            "error": one.error or one.failed,
        }
        for one in log.strikes
    ]
    with path.open("w") as file:
        for line in sorted([*said, *done], key=itemgetter("at_ms")):
            file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    sys.exit(main())
