"""A cancellation that must not get lost: for code that catches errors around a task group."""

import asyncio


def pass_cancellation() -> None:
    """Raises CancelledError if the current task was asked to end.

    Before Python 3.13 a task group that has errors forgets that it was cancelled as well, and
    grpc.aio raises CancelledError for a cancelled *call* too. Whoever catches either asks here
    whether it was the task that was meant.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
