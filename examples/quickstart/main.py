"""Submits jobs and waits for them. Run it beside `tenure dev app.jobs`, in this folder."""

from datetime import timedelta

from app.jobs import notify, resize

from tenure.client import Client


def main() -> None:
    """Submits one job, one for later, and several at once."""
    with Client() as c:  # TENURE_ADDRESS, or 127.0.0.1:7400
        h = c.submit(resize, "s3://a.png", width=320)  # JobHandle[str]: arguments are type-checked
        print(h.id, h.result(timeout=30))  # a str; raises JobFailed(.error, .attempts)

        late = notify.options(delay=timedelta(hours=1), key="welcome-42", priority=2)
        first = c.submit(late, 42, "hi")
        again = c.submit(late, 42, "hi")  # the same key within a day: the same job
        print(again.id == first.id, again.status().name)

        for done in c.as_completed(c.map(resize, ["a", "b", "c"])):
            print(done.result())


if __name__ == "__main__":
    main()
