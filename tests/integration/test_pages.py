"""The documents do what they say: every block of every page is run, or somebody else runs it.

Pages wait for leases and terms to end, so they are followed side by side.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.integration.page import (
    Reader,
)

pytestmark = pytest.mark.timeout(180)

#: Followed here, the ones that take longest first.
PAGES = (
    "docs/tutorial/survive-a-crash.md",
    "docs/how-to/idempotency.md",
    "docs/how-to/run-a-cluster.md",
    "docs/tutorial/first-job.md",
    "docs/how-to/cancel.md",
    "docs/how-to/retry.md",
    "docs/how-to/upgrade.md",
    "docs/how-to/back-up.md",
    "docs/how-to/test-your-jobs.md",
    "docs/how-to/delay.md",
)
#: How many at a time: they wait more than they work.
SIDE_BY_SIDE = 4


Runs = dict[str, "Future[None]"]


@pytest.fixture(scope="module")
def runs(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Runs]:
    """The pages that this session has tests of, each being followed by a reader of its own."""
    wanted = {item.name.partition("[")[2].removesuffix("]") for item in request.session.items}

    def follow(page: str, folder: Path) -> None:
        with Reader(folder, page) as reader:
            reader.follow()

    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        yield {
            page: pool.submit(follow, page, tmp_path_factory.mktemp(Path(page).stem))
            for page in PAGES
            if page in wanted
        }


@pytest.mark.etcd
@pytest.mark.parametrize("page", PAGES)
def test_page(page: str, runs: Runs) -> None:
    """Its commands succeed and print what it shows."""
    runs[page].result()
