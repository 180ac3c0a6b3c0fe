"""A worker's launcher as the worker sees it: what it does when it cannot be started."""

import os
import resource
from collections.abc import Iterator

import pytest

from tenure.worker.executor.launch import Launch, Said
from tenure.worker.executor.launcher_link import LauncherLink, LauncherLost


@pytest.fixture
def link() -> Iterator[LauncherLink]:
    """A link without a launcher."""
    link = LauncherLink()
    yield link
    link.close()


def deaf(said: Said) -> None:
    """Hears nothing."""


def launch(link: LauncherLink, script: str = "exit 0") -> Launch:
    """A script to run."""
    env = {b"PATH": os.environb[b"PATH"]}
    argv = [b"sh", b"-c", script.encode()]
    return Launch(link.number(), argv, env, b"", b"", True, 1 << 16, [], 0)


def test_want_of_files_is_survived(link: LauncherLink) -> None:
    """Who wants a launcher when no file can be opened is told so, in no other way than when it has
    died: the thread of the children goes on.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        link.guard(1 << 30)
        with pytest.raises(LauncherLost):
            link.run(launch(link), deaf, lambda: True)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    finished = link.run(launch(link), deaf, lambda: True)
    assert finished is not None
    assert finished.status == 0


def test_what_is_not_wanted_any_more_is_not_begun(link: LauncherLink) -> None:
    """A stop that came before its command was known finds it not begun."""
    assert link.run(launch(link), deaf, lambda: False) is None
    assert link._process is None
