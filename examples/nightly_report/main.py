"""Plans a report for each night, and has one made now. Run it beside
`tenure dev examples.nightly_report.jobs`, in the repository's folder.
"""

from datetime import UTC, timedelta
from zoneinfo import ZoneInfo

from examples.nightly_report.jobs import back_up, report, send_invoice
from tenure.client import Client, cron

NAME = "nightly-report"
ZONE = ZoneInfo("Europe/Berlin")
NIGHTLY = cron(
    # Half past two by the clocks of the office, in summer and in winter. In the night that has no
    # half past two it is made at three; in the one that has two of them, at the first.
    "30 2 * * *",
    tz=ZONE,
    # Up to ten minutes later, always the same for one night: not everybody's reports at once.
    jitter=timedelta(minutes=10),
    # When no master led at that time: one report, however many nights were missed ...
    misfire="fire_once",
    # ... unless it is so late that the office works already.
    catch_up=timedelta(hours=5),
    # While yesterday's is still being made there is no other one.
    overlap="skip",
    note="read at eight o'clock",
)


def main() -> None:
    """Lets the office work, plans the report, and has it made at once."""
    with Client() as client:
        work = [*client.map(send_invoice, range(1, 11)), *client.map(back_up, ["books", "mail"])]
        client.wait_all(work, timeout=60)

        client.schedules.put(NAME, NIGHTLY, report)
        for at in client.schedules.get(NAME, upcoming=3).upcoming:
            print(f"next: {at.ToDatetime(UTC).astimezone(ZONE):%A %H:%M} in {ZONE}")

        # The night is far; this one comes beside the ticks.
        print(client.schedules.trigger(NAME).result(timeout=60))


if __name__ == "__main__":
    main()
