"""The documents name what is there: paths, make targets, reasons, limits, events."""

import ast
import re
import tomllib
from datetime import timedelta
from functools import cache
from pathlib import Path

import pytest

from tenure.cli import exits
from tenure.client import BreakerSettings, RateLimit
from tenure.client.settings import JobTypeChanges, QueueChanges
from tenure.master.core.config import PartitionConfig
from tenure.master.node.master import MEMORY_BYTES_DEFAULT
from tenure.protocol import limits
from tenure.protocol.errors import error_of
from tenure.protocol.refusal import Reason, Refusal

REPOSITORY = Path(__file__).resolve().parents[2]
#: Histories of what was: they stay as they were written.
HISTORIES = {"docs/track-record.md"}
DOCUMENTS = sorted(
    {
        path.relative_to(REPOSITORY).as_posix()
        for pattern in ("*.md", "docs/*.md", "docs/*/*.md")
        for path in REPOSITORY.glob(pattern)
        if path.parent.name != "adr" or path.name == "README.md"
    }
    - HISTORIES
    - {"CHANGELOG.md"}
)
FOLDERS = ("protos", "client", "worker", "master", "testing", "tests", "docs", "examples", "tools")

#: In backticks: with a slash, or with the suffix of a source file.
PATH = re.compile(r"`(\.?[\w-]+(?:/[\w.-]+)+/?|[\w-]+\.(?:py|md|proto)|[\w-]+/)`")
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")
ANCHOR = re.compile(r"\]\(([^)#:]*)#([^)]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.M)
#: In backticks: a test, alone or behind its module.
TEST = re.compile(r"`(?:[\w/]+\.py::)?(test_\w+)`")
DEFINED = re.compile(r"(?:def |^)([tT]est\w+)(?=\(| = )", re.M)
MAKE = re.compile(r"(?:`|^|\$ )make\s+([a-z][a-z-]*)", re.M)
#: Written by what the text tells to run, or the reader's own.
MADE = {
    "out/report.html",
    "out/simulate.json",
    "out/simulate-digests.txt",
    "app/jobs.py",
    "main.py",
}
KIB = 1024
REASON_ROW = re.compile(r"^\| ([A-Z_]+) \| ([A-Z_]+) \| (\w+) \| (.+) \| (\d+) \|$", re.M)


def text_of(name: str) -> str:
    """A document."""
    return (REPOSITORY / name).read_text("utf-8")


@cache
def paths() -> frozenset[str]:
    """Every file and folder by each ending of its path: `core/submit.py`, `submit.py`."""
    found = [path for path in REPOSITORY.iterdir() if path.is_file()]
    found += [REPOSITORY / ".ci" / "run"]
    for folder in FOLDERS:
        found += [REPOSITORY / folder, *(REPOSITORY / folder).rglob("*")]
    endings = set()
    for path in found:
        parts = path.relative_to(REPOSITORY).parts
        endings |= {"/".join(parts[start:]) for start in range(len(parts))}
    return frozenset(endings)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_path_exists(name: str) -> None:
    """A file that is named is there, in full or by the end of its path."""
    named = {found.rstrip("/") for found in PATH.findall(text_of(name))}

    assert sorted(named - paths() - MADE) == []


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_link_leads_somewhere(name: str) -> None:
    """A relative link is resolved from the document's own folder."""
    folder = (REPOSITORY / name).parent

    assert [link for link in LINK.findall(text_of(name)) if not (folder / link).exists()] == []


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_anchor_is_a_heading(name: str) -> None:
    """A link into a page leads to one of its headings."""
    path = REPOSITORY / name
    for page, anchor in ANCHOR.findall(text_of(name)):
        text = (path.parent / page if page else path).read_text("utf-8")
        assert anchor in {anchor_of(heading) for heading in HEADING.findall(text)}, page


def anchor_of(heading: str) -> str:
    """What a heading is linked by, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_test_that_is_named_exists(name: str) -> None:
    """What a document says proves something is there."""
    assert sorted(set(TEST.findall(text_of(name))) - names_of_tests()) == []


@cache
def names_of_tests() -> frozenset[str]:
    """The names of all test functions and modules."""
    found = set()
    for path in (REPOSITORY / "tests").rglob("test_*.py"):
        found |= {path.stem, *DEFINED.findall(path.read_text("utf-8"))}
    return frozenset(found)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_make_target_exists(name: str) -> None:
    """A target that is named is in the Makefile."""
    targets = set(re.findall(r"^([a-z-]+):", text_of("Makefile"), re.M))

    assert sorted(set(MAKE.findall(text_of(name))) - targets) == []


def test_the_map_leads_to_every_page() -> None:
    """docs/README.md links each page of the documents, and each other page of the repository."""
    linked = {
        (REPOSITORY / "docs" / link).resolve().relative_to(REPOSITORY).as_posix()
        for link in LINK.findall(text_of("docs/README.md"))
    }

    assert {*DOCUMENTS, *HISTORIES, "CHANGELOG.md"} - linked == {"docs/README.md"}


def test_the_architecture_has_every_module() -> None:
    """Each module is named once in its folder's section of ARCHITECTURE.md, and no other is."""
    text = text_of("ARCHITECTURE.md")
    sections = dict(re.findall(r"^### `([\w/]+)`\n(.*?)(?=^##)", text, re.M | re.S))
    modules: dict[str, list[str]] = {}
    for part in ("protos", "client", "worker", "master", "testing"):
        for path in (REPOSITORY / part).rglob("*.p[yr]*"):
            if re.fullmatch(r"(?!__|.*_pb2)\w+\.(py|proto)", path.name):
                folder = path.parent.relative_to(REPOSITORY).as_posix()
                modules.setdefault(folder, []).append(path.name)
    # Beside the contract lies the part of etcd's that is used: not ours to explain.
    del modules["protos/tenure/etcdapi"]
    named = {
        folder: sorted(re.findall(r"`(\w+\.(?:py|proto))`", section))
        for folder, section in sections.items()
        if folder != "tests"
    }

    assert named == {folder: sorted(names) for folder, names in modules.items()}


@pytest.mark.parametrize("name", ["ARCHITECTURE.md", "docs/adr/0005-layout.md"])
def test_the_layers_are_those_that_are_held(name: str) -> None:
    """What is drawn is what import-linter is told."""
    contracts = tomllib.loads(text_of("pyproject.toml"))["tool"]["importlinter"]["contracts"]
    drawn = " ".join(text_of(name).split())
    for contract in contracts:
        if contract["type"] == "layers":
            layers = [layer.replace("tenure.", "") for layer in contract["layers"]]
            assert " → ".join(layers) in drawn


def test_the_track_record_tells_of_each_bug_by_itself() -> None:
    """The newest comes first, and how a bug was found is said in its own row."""
    text = text_of("docs/track-record.md")
    rows = [re.split(r" (?<!\\)\| ", row) for row in re.findall(r"^\| (20.+) \|$", text, re.M)]
    dates = [row[0] for row in rows]
    vague = {"the same", "review", "reading"}

    assert dates == sorted(dates, reverse=True)
    assert [row for row in rows if len(row) != 4 or row[2] in vague] == []


def test_decisions_are_all_listed() -> None:
    """The index has each record under its own title."""
    index = text_of("docs/adr/README.md")

    for path in sorted((REPOSITORY / "docs" / "adr").glob("0*.md")):
        title = path.read_text("utf-8").partition("\n")[0].partition(". ")[2]
        assert f"[{title}]({path.name})" in index


def test_every_requirement_has_a_reason() -> None:
    """What pyproject.toml asks for, and for which part, is what ADR 4 gives reasons for."""
    toml = tomllib.loads(text_of("pyproject.toml"))
    project, development = toml["project"], toml["dependency-groups"]
    groups = {
        "base": project["dependencies"],
        "build": toml["build-system"]["requires"],
        "development": [*development["test"], *development["dev"]],
        **project["optional-dependencies"],
    }
    asked = {
        (where, re.sub(r"^types-.*", "types-*", re.split(r"[^\w-]", requirement)[0]))
        for where, requirements in groups.items()
        for requirement in requirements
        if isinstance(requirement, str) and not requirement.startswith("tenure[")
    }
    decision = text_of("docs/adr/0004-dependencies.md")
    rows = re.findall(r"^\| (.+?) \| (.+?) \| .+ \|$", decision, re.M)
    explained = {
        (where, library.split()[0])
        for places, libraries in rows[1:]
        for where in places.replace("`", "").split(", ")
        for library in libraries.split(", ")
    }

    assert explained == asked


def test_settings_of_queues_are_said_as_both_languages_have_them() -> None:
    """Each flag of the guide's tables is one of ``tenure queues set``, each keyword the SDK's."""
    names = {"RateLimit": RateLimit, "BreakerSettings": BreakerSettings}
    names |= {"timedelta": timedelta, "minute": timedelta(minutes=1)}
    keywords = QueueChanges.__annotations__.keys() | JobTypeChanges.__annotations__.keys()
    options = set(re.findall(r"--[\w-]+", text_of("docs/cli.md").partition("queues set\n")[2]))
    rows = re.findall(r"^\| (`--.+?) \| (`\w+[(=].+?) \|", text_of("docs/how-to/queues.md"), re.M)
    for flags, spellings in rows:
        assert set(re.findall(r"--[\w-]+", flags)) <= options
        for spelling in re.findall(r"`(.+?)`", spellings):
            if not spelling.startswith("BreakerSettings"):
                assert eval(f"dict({spelling})", names).keys() <= keywords
            else:
                assert eval(spelling, names)
    assert len(rows) > 15


def test_reasons_are_complete_and_true() -> None:
    """Each reason has one line, with the status, the class and the exit code that the code has."""
    rows = REASON_ROW.findall(text_of("docs/reasons.md"))
    said = {reason: (status, kind, int(code)) for reason, status, kind, _, code in rows}

    assert sorted(row[0] for row in rows) == sorted(Reason)
    for reason in Reason:
        error = error_of(Refusal(reason=reason, message=""))
        true = (error.code.name, type(error).__name__, exits.code_of(error))
        assert said[reason] == true, reason


def test_every_reason_is_raised_somewhere() -> None:
    """Each is an argument of some call (or its default) in what users run: none is only listed."""
    raised = set()
    for folder in ("protos", "client", "worker", "master"):
        for path in (REPOSITORY / folder).rglob("*.py"):
            raised |= _reasons_said(ast.parse(path.read_text("utf-8")))

    assert set(Reason) - raised == set()


def _reasons_said(tree: ast.Module) -> set[Reason]:
    """The members of Reason that a module's calls are given, and that its functions default to."""
    given: list[ast.expr | None] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            given += [*node.args, *(keyword.value for keyword in node.keywords)]
        elif isinstance(node, ast.arguments):
            given += [*node.defaults, *node.kw_defaults]
    said = [part for value in given if value is not None for part in _choices(value)]
    return {
        Reason[value.attr]
        for value in said
        if isinstance(value, ast.Attribute) and ast.unparse(value.value) == "Reason"
    }


def _choices(value: ast.expr) -> list[ast.expr]:
    return [value.body, value.orelse] if isinstance(value, ast.IfExp) else [value]


def test_every_announced_event_is_documented() -> None:
    """What masters and workers print is what docs/operations.md lists, and nothing else."""
    text = text_of("docs/operations.md")
    rows = re.findall(r"^\| (master|worker|supervisor) \| `(\w+)` \|", text, re.M)
    announced = set()
    for folder in ("master", "worker"):
        for path in (REPOSITORY / folder).rglob("*.py"):
            who = "supervisor" if path.name in ("supervisor.py", "fleet.py") else folder
            events = re.findall(
                r"(?:nnounce|News)\(\s*(?:event=)?\"(\w+)\"", path.read_text("utf-8")
            )
            announced |= {(who, event) for event in events}

    assert sorted(rows) == sorted(announced)


def test_limits_are_those_of_the_code() -> None:
    """The numbers in docs/limits.md, next to what they are called in the code."""
    config = PartitionConfig(partition=0, partitions=1)
    kept = config.retention
    said = {
        "| arguments, encoded | 256 KiB |": limits.PAYLOAD_BYTES_DEFAULT == 256 * KIB,
        "| result, encoded | 256 KiB |": config.payload_bytes_max == 256 * KIB,
        "requeue, purge, boost | 1,000 |": limits.BATCH_JOBS_MAX == 1_000,
        "options included | 400 KiB |": limits.BATCH_BYTES_MAX == 400 * KIB,
        "labels | 1 to 128 of": limits.NAME_CHARS_MAX == 128,
        "sticky key | 256 characters |": limits.KEY_CHARS_MAX == 256,
        "| a job's options, serialized | 16 KiB |": limits.OPTIONS_BYTES_MAX == 16 * 1024,
        "window | 7 days (24 h) |": limits.KEY_WINDOW_MS_MAX == 7 * limits.DAY_MS,
        "| 0 to 10 (5) |": (limits.PRIORITY_MAX, limits.PRIORITY_DEFAULT) == (10, 5),
        "result TTL | 366 days |": limits.DELAY_MS_MAX == 366 * limits.DAY_MS,
        "heartbeat timeout | 7 days |": limits.TIMEOUT_MS_MAX == 7 * limits.DAY_MS,
        "| 1,000 (4; 3) |": (limits.MAX_ATTEMPTS_DEFAULT, limits.MAX_LOST_DEFAULT) == (4, 3),
        "never reach a worker | 10 |": config.max_undelivered == 10,
        "unknown job id | 5 minutes |": limits.RETRY_WINDOW_MS == 300_000,
        "cluster's clock | 60 s |": limits.ID_AHEAD_MS_MAX == 60_000,
        "values of one | 16 |": limits.SELECTORS_MAX == 16,
        "in one queue | 1,000,000, or its": config.queue_depth_max == 1_000_000,
        "settings of their own | 100,000 |": limits.SETTINGS_MAX == 100_000,
        "at most 1,000,000 | INVALID": limits.WEIGHT_MAX == 1_000_000,
        "1 ms to 366 days |": limits.RATE_PER_MS_MAX == 366 * limits.DAY_MS,
        "window 1 h, open for 7 days, 1,000 probes": (
            (limits.BREAKER_WINDOW_MS_MAX, limits.PROBES_MAX) == (3_600_000, 1_000)
        ),
        "held open or closed | 100 |": limits.KEY_OVERRIDES_MAX == 100,
        "or of `--memory-max` (1 GiB)": MEMORY_BYTES_DEFAULT == KIB * KIB * KIB,
        "| 1 h, 100,000 |": (kept.completed_ms, kept.completed_max) == (3_600_000, 100_000),
        "| 7 days, 100,000 |": (kept.failed_ms, kept.failed_max) == (7 * limits.DAY_MS, 100_000),
        "traceback | 4 KiB, 32 KiB |": limits.TRACEBACK_BYTES_MAX == 32 * KIB,
        "| 5 s to 366 days (1 h) |": (limits.MISFIRE_MS, limits.CATCH_UP_MS_DEFAULT)
        == (5_000, 3_600_000),
        "| jitter | 1 day (0) |": limits.JITTER_MS_MAX == limits.DAY_MS,
        "| note | 1 KiB |": limits.NOTE_BYTES_MAX == KIB,
        "| 100 (5) |": (limits.UPCOMING_MAX, limits.UPCOMING_DEFAULT) == (100, 5),
        "of one partition | 100,000 |": limits.SCHEDULES_MAX == 100_000,
        "fixed for ever": limits.PARTITIONS_MAX == 4_096,
        "| page of a list | 1,000 (100)": (limits.PAGE_SIZE_MAX, limits.PAGE_SIZE_DEFAULT)
        == (1_000, 100),
        "| 4,096 characters, parentheses 16 deep |": (
            (limits.FILTER_CHARS_MAX, limits.FILTER_DEPTH_MAX) == (4_096, 16)
        ),
    }
    text = text_of("docs/limits.md")

    assert [part for part, true in said.items() if part not in text or not true] == []


@pytest.mark.parametrize(
    ("row", "quotes"),
    [
        ("new leader after `kill -9`", ["docs/operations.md"]),
        (
            "first grant after `kill -9`",
            ["docs/operations.md", "docs/how-to/run-a-cluster.md", "README.md"],
        ),
        ("no grant around an orderly hand-over", ["docs/operations.md"]),
    ],
)
def test_times_of_failovers_are_those_of_the_long_run(row: str, quotes: list[str]) -> None:
    """Who quotes how long a failover takes says what the counts of docs/reliability.md say."""
    counts = re.search(
        rf"^\| {row}: median; worst \| ([\d.]+ s); ([\d.]+ s) \|",
        text_of("docs/reliability.md"),
        re.M,
    )
    assert counts is not None
    median, worst = counts.groups()
    said = re.compile(rf"median(?: of)? {re.escape(median)}, (?:at )?worst {re.escape(worst)}")

    assert [name for name in quotes if not said.search(" ".join(text_of(name).split()))] == []


def test_a_path_that_is_not_there_is_found() -> None:
    """The patterns can fail."""
    text = "see `core/gone.py`, [x](docs/gone.md), `make gone`"

    assert PATH.findall(text) == ["core/gone.py"]
    assert LINK.findall(text) == ["docs/gone.md"]
    assert ANCHOR.findall("[x](a.md#b)") == [("a.md", "b")]
    assert MAKE.findall(text) == ["gone"]
    assert "core/gone.py" not in paths()
