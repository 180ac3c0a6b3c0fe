"""``python -m tests.mutants [NAME …]``: which planted bugs ordinary random runs find, and how soon.

Prints one row a bug. Exit code 1 if any is not found.
"""

from __future__ import annotations

import argparse
import statistics
import sys

from tests.mutants.catalogue import MUTANTS
from tests.mutants.hunt import SEEDS_MAX, Catch, Hunter


def _say(line: str) -> None:
    print(line, flush=True)


def main() -> int:
    """Hunts, and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these; none: all")
    parser.add_argument("--seeds", type=int, default=SEEDS_MAX, help="at most so many a bug")
    parser.add_argument("--verbose", action="store_true", help="show what was found in full")
    flags = parser.parse_args()
    unknown = [name for name in flags.names if name not in MUTANTS]
    if unknown:
        parser.error(f"no such bug: {', '.join(unknown)}; there are {', '.join(MUTANTS)}")
    names = flags.names or list(MUTANTS)
    catches: list[Catch] = []
    hunter = Hunter(flags.seeds)
    try:
        _say(f"{'planted bug':42} {'found by':9} {'seeds':>6} {'s':>6}")
        for name in names:
            caught = hunter.hunt(name)
            catches.append(caught)
            by = caught.invariant or "NOT FOUND"
            _say(f"{name:42} {by:9} {caught.seeds or '-':>6} {caught.took_s:6.0f}")
            if flags.verbose and caught.detail:
                _say(f"    {caught.detail[:2000]}")
            if caught.unclean:
                _say(f"    fail without the bug, too: {caught.unclean}")
    finally:
        hunter.close()
    found = [caught.seeds for caught in catches if caught.seeds]
    median = statistics.median(found) if found else 0
    _say(f"{len(found)} of {len(catches)} found; median {median:g} seeds")
    return 0 if len(found) == len(catches) else 1


if __name__ == "__main__":
    sys.exit(main())
