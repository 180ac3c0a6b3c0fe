"""What the application's workers do."""

from datetime import timedelta

from tenure.client import Retry, current_job, job


@job(
    queue="media", retry=Retry(max_attempts=5, backoff="exponential"), timeout=timedelta(minutes=5)
)
def resize(url: str, width: int = 640) -> str:
    """Pretends to make an image smaller."""
    me = current_job()  # id, attempt, fence, deadline, cancelled, log
    for pct in (25, 50, 100):
        me.progress(pct)  # raises Cancelled or LeaseLost when it is time to stop
    return f"{url}?w={width}"


@job(queue="mail")
async def notify(user_id: int, text: str) -> None:
    """Pretends to tell a user something."""
    current_job().log.info("telling user %d: %s", user_id, text)
