"""Runs the pipeline for a good day and for one whose data is missing. Run it beside
`tenure dev examples.data_pipeline.jobs`, in the repository's folder.
"""

from examples.data_pipeline.jobs import (
    alarm,
    analyse,
    features,
    ingest,
    report,
    transform,
    validate,
)
from tenure.client import Client, chain, chord
from tenure.client.picture import to_mermaid

PARTS = 3


def main() -> None:
    """Runs both and prints what became of them."""
    with Client() as client:
        for day in ("monday", "lost"):
            with client.workflow("pipeline") as flow:
                parts = [
                    chain(ingest.bind(day, part), validate, transform) for part in range(PARTS)
                ]
                (told,) = flow.put(chain(chord(parts, features), analyse, report)).handles
                # Whatever fails on the way, the report does not come, and this runs.
                branch = flow.add(alarm.options(after=[told], run_if="any_failed"), day)
            flow.wait(timeout=60)
            ended = told if told.status().name == "COMPLETED" else branch
            print(f"{day}: {flow.state().name}, {ended.result()}")
            print(to_mermaid(flow.members()))


if __name__ == "__main__":
    main()
