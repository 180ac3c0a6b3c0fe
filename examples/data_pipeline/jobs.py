"""The steps of the pipeline. Rows are small here; real ones would pass the address of a file."""

from collections.abc import Iterator
from statistics import mean

from tenure.client import Permanent, job

Rows = list[dict[str, float]]


@job
def ingest(day: str, part: int) -> Rows:
    """Reads one part of a day's data."""
    if day == "lost":
        return []
    return [{"part": float(part), "value": float(part * 10 + row)} for row in range(3)]


@job
def validate(rows: Rows) -> Rows:
    """Lets only sound data pass."""
    if not rows:
        raise Permanent("there are no rows")
    return rows


@job
def transform(rows: Rows) -> Rows:
    """Brings values to another unit."""
    return [{**row, "value": row["value"] / 10} for row in rows]


@job
def features(parts: Iterator[Rows]) -> list[float]:
    """Puts all parts together; they come one by one, however many there are."""
    return [row["value"] for rows in parts for row in rows]


@job
def analyse(values: list[float]) -> dict[str, float]:
    """Computes."""
    return {"mean": mean(values), "highest": max(values)}


@job
def report(figures: dict[str, float]) -> str:
    """Writes it down."""
    return ", ".join(f"{name} {figure:.2f}" for name, figure in figures.items())


@job
def alarm(day: str) -> str:
    """The error branch: somebody has to look."""
    return f"the data of {day} needs a look"
