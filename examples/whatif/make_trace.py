"""Writes `shop.jsonl`: half an hour of a shop's jobs, shaped as such traces are.

Arrivals come in a wave with bursts; run times are log-normal, with a long tail; one tenant throws
thousands of reports in at once. The seed is fixed, so that the file is the same each time.

    python -m examples.whatif.make_trace
"""

import json
import math
import random
from pathlib import Path

TRACE = Path(__file__).with_name("shop.jsonl")
_SEED = 20
_SPAN_MS = 30 * 60_000
#: queue, name, jobs, median run in ms, spread of its logarithm, priorities.
_STREAMS = (
    ("mail", "shop.mail.send", 700, 180, 0.5, (3, 5, 5, 7)),
    ("orders", "shop.orders.confirm", 350, 400, 0.6, (1, 2)),
    ("media", "shop.media.thumbnail", 250, 3_000, 0.9, (5, 8)),
)
_REPORTS = 200


def jobs() -> list[dict[str, object]]:
    """The jobs, oldest first."""
    draw = random.Random(_SEED)
    made: list[dict[str, object]] = []
    for queue, name, count, run_ms, spread, priorities in _STREAMS:
        for _ in range(count):
            job: dict[str, object] = {
                "at_ms": _arrival_ms(draw),
                "queue": queue,
                "name": name,
                "priority": draw.choice(priorities),
                "run_ms": round(draw.lognormvariate(math.log(run_ms), spread)),
            }
            if queue == "orders":
                job["limit_key"] = f"customer-{draw.randrange(40)}"
            made.append(job)
    for number in range(_REPORTS):
        made.append(
            {
                "at_ms": 600_000 + number,
                "queue": "reports",
                "tenant": "acme",
                "name": "shop.reports.build",
                "priority": 8,
                "run_ms": round(draw.lognormvariate(math.log(4_000), 0.4)),
            }
        )
    return sorted(made, key=lambda job: int(str(job["at_ms"])))


def _arrival_ms(draw: random.Random) -> int:
    """A time in the wave: the middle is three times as busy as the ends; a third come in bursts."""
    while True:
        at_ms = draw.randrange(_SPAN_MS)
        if draw.random() < (1 + 2 * math.sin(math.pi * at_ms / _SPAN_MS)) / 3:
            break
    if draw.random() < 1 / 3:
        at_ms -= at_ms % 120_000
        at_ms += draw.randrange(2_000)
    return at_ms


def text() -> str:
    """The file's text."""
    return "".join(json.dumps(job, separators=(",", ":")) + "\n" for job in jobs())


def main() -> None:
    """Writes the file."""
    TRACE.write_text(text(), "utf-8")
    print(f"{len(jobs())} jobs in {TRACE.name}")


if __name__ == "__main__":
    main()
