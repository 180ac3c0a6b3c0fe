"""Whether another process has ended."""

import psutil


def has_ended(pid: int) -> bool:
    """Whether a process has ended; one that nobody has reaped yet has, too."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
