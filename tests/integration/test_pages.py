"""The documents do what they say: every block of every page is run, or somebody else runs it.

Pages wait for leases and terms to end, so they are followed side by side.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.chaos.cluster import REPOSITORY
from tests.integration.page import CONSOLE, FILES, PICTURE, Block, Reader, Step, blocks, matches
from tests.unit.test_docs import DOCUMENTS

pytestmark = pytest.mark.timeout(180)

#: Followed here, the ones that take longest first.
PAGES = (
    "docs/tutorial/survive-a-crash.md",
    "README.md",
    "docs/how-to/idempotency.md",
    "docs/how-to/run-a-cluster.md",
    "docs/tutorial/first-job.md",
    "docs/how-to/executors.md",
    "docs/how-to/cancel.md",
    "docs/how-to/logs.md",
    "docs/how-to/retry.md",
    "docs/how-to/upgrade.md",
    "docs/how-to/back-up.md",
    "docs/how-to/test-your-jobs.md",
    "docs/how-to/delay.md",
    "docs/how-to/schedules.md",
    "docs/how-to/queues.md",
    "docs/how-to/workers.md",
    "docs/how-to/workflows.md",
    "docs/how-to/batches.md",
    "docs/how-to/batch-handlers.md",
    "docs/how-to/size-a-worker.md",
    "docs/how-to/checkpoints.md",
)
#: Pages that other tests follow, because they need more than one reader and one shell.
FOLLOWED_BY = {
    "docs/grpcurl.md": "tests/integration/test_grpcurl.py",
    "docs/how-to/what-if.md": "tests/integration/test_whatif.py",
    "docs/middleware.md": "tests/integration/test_code_pages.py",
    "docs/payloads.md": "tests/integration/test_code_pages.py",
    "docs/security.md": "tests/integration/test_security.py",
    **dict.fromkeys(
        (
            "docs/runbooks/clocks.md",
            "docs/runbooks/halted.md",
            "docs/runbooks/nospace.md",
            "docs/runbooks/replace-a-member.md",
            "docs/runbooks/restore-a-site.md",
            "docs/runbooks/restore-etcd.md",
        ),
        "tests/integration/test_runbooks.py",
    ),
}
#: Pages that the code writes, and what writes them; unit tests compare.
WRITTEN_BY = {
    "docs/api.md": "tools/generate_api.py",
    "docs/cli.md": "tools/generate_reference.py",
    "docs/configuration.md": "tools/generate_reference.py",
}
#: Commands in the README that are not run here, and who runs them.
RUN_ELSEWHERE = {
    "python3 -m venv .venv && . .venv/bin/activate && pip install '.[all]'": "make packaging does",
    "cd examples/quickstart": "tests/integration/test_quickstart.py runs what is there",
    "make demo": "a step of .ci/run",
    "make test": "a step of .ci/run, and what runs this test",
    "make simulate": "a step of .ci/run",
    "make demo-cluster": "four minutes at worst; tests/chaos kills the same processes",
}
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


def test_every_block_is_run_or_excused() -> None:
    """A page or a block that nothing runs fails here."""
    for page in DOCUMENTS:
        if page not in FOLLOWED_BY and page not in WRITTEN_BY:
            languages = {block.language for block in blocks(page) if not shows_targets(block)}
            # A block without a language is an outline: of a command, a message, a file.
            outlines = {PICTURE, ""} | ({"sh"} if page == "README.md" else set())
            assert languages <= outlines | ({CONSOLE, *FILES} if page in PAGES else set()), page


def shows_targets(block: Block) -> bool:
    """Whether it shows targets of the Makefile; a unit test looks whether they are there."""
    steps = [*block.steps()] if block.language == CONSOLE else []
    return bool(steps) and all(step.command.startswith("make ") for step in steps)


def test_pages_are_followed_by_whom_it_says() -> None:
    """The other tests are there and name their pages."""
    for page, test in {**FOLLOWED_BY, **WRITTEN_BY}.items():
        assert Path(page).name in (REPOSITORY / test).read_text("utf-8"), page


def test_commands_of_the_readme_are_run_elsewhere() -> None:
    """Its `sh` blocks hold nothing else, and CI has the steps that are said to be its."""
    shells = [block.text for block in blocks("README.md") if block.language == "sh"]
    lines = [line.partition(" #")[0].strip() for shell in shells for line in shell.splitlines()]
    ci = (REPOSITORY / ".ci" / "run").read_text("utf-8")

    assert set(lines) == set(RUN_ELSEWHERE)
    assert all(f"step {c}\n" in ci for c, who in RUN_ELSEWHERE.items() if ".ci/run" in who)


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        ("", ""),
        ("a\n…\nd", "a\nb\nc\nd\n"),
        ("a … c", "a b c"),
        (
            "018f0000-0000-7000-8000-000000000000  DONE 2026-01-01 00:00:00.000Z",
            "01a2026c-95b9-7000-9519-24db82ac45f0    DONE 2031-12-31 23:59:59.999Z",
        ),
    ],
)
def test_what_may_differ(shown: str, printed: str) -> None:
    """Ids, times, widths, and what the page leaves out."""
    assert matches(shown, printed)


@pytest.mark.parametrize(
    ("shown", "printed"),
    [("", "a"), ("a", ""), ("a", "a\nb"), ("a b", "a c"), ("1 job", "2 jobs"), ("a.c", "abc")],
)
def test_what_may_not_differ(shown: str, printed: str) -> None:
    """A text that a command does not print is found."""
    assert not matches(shown, printed)


@pytest.mark.parametrize("command", ["false", "exit 0", "echo b"])
def test_a_command_that_fails_is_found(command: str, tmp_path: Path) -> None:
    """Each command has to succeed, to print what is shown, and to leave the shell alone."""
    with Reader(tmp_path) as reader, pytest.raises(AssertionError, match=command):
        reader.take(Step(command, "a" if command.startswith("echo") else ""))


@pytest.mark.parametrize(
    "hint",
    [
        "partition 0 has not been served for 5 s; still looking for its leader: nobody leads it",
        "no master has answered yet; still trying 127.0.0.1:7400",
        "still waiting: no worker is connected",
        "job 01a2026e-b32b-7000-9939-92f29a2c96e9 waits: no worker is connected",
    ],
)
def test_a_command_may_say_that_it_waits(hint: str, tmp_path: Path) -> None:
    """A hint that depends on how long others take is not compared; what is beside it is."""
    with Reader(tmp_path) as reader:
        reader.take(Step(f"echo a; echo '{hint}' >&2; echo b", "a\nb"))
        with pytest.raises(AssertionError, match="but it printed"):
            reader.take(Step(f"echo '{hint}'; echo 'something else'", ""))
        with pytest.raises(AssertionError, match="to succeed"):
            reader.take(Step(f"echo '{hint}'; false", ""))


def test_a_reader_has_one_shell(tmp_path: Path) -> None:
    """Variables last, and addresses are those of the page, on whichever stream."""
    with Reader(tmp_path) as reader:
        reader.take(Step("x=1", ""))
        reader.take(Step("echo $x 127.0.0.1:7400 >&2", "1 127.0.0.1:7400"))
