"""House rules that no linter knows, kept by reading every hand-written module's syntax tree.

Each rule is a function from one module to its offences. Each is run twice: over the repository,
where it must find nothing that its list of exceptions does not name, and over a planted offence,
which it must find.
"""

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

# The first test reads the whole repository.
pytestmark = pytest.mark.timeout(180)

REPOSITORY = Path(__file__).resolve().parents[2]
PRODUCT = ("protos", "client", "worker", "master", "testing")
REST = ("tests", "examples", "benchmarks", "tools")
SUITES = ("unit", "conformance", "histories", "simulation", "integration", "chaos")
PORTIONS = (
    "protos/tenure/etcdapi",
    "protos/tenure/protocol",
    "protos/tenure/v1",
    "client/tenure/client",
    "client/tenure/cli",
    "worker/tenure/worker",
    "master/tenure/master",
    "testing/tenure/testing",
)

FUNCTION_LINES_MAX = 70
MODULE_LINES_MAX = 600

#: The hot loops, "path::qualified name": one loop over rows reads and runs better in one piece.
LONG_FUNCTIONS: frozenset[str] = frozenset()
#: Modules above the limit, each with a reason in its own docstring.
LONG_MODULES: frozenset[str] = frozenset()
#: "path": tasks that outlive the scope that starts them, so no TaskGroup can own them.
BARE_TASKS = frozenset(
    {
        # Holds the group of a client's background tasks: its user enters no `async with` of ours.
        "client/tenure/client/scope.py",
        # Tasks of users' jobs, which report their own ends: a group's callbacks cost as much.
        "worker/tenure/worker/executor/coroutine.py",
        # A planted bug's thread, which its process must not take along when it stands still.
        "tests/mutants/catalogue.py",
    }
)
#: "path:line what": a machine may have nothing that the test could try.
SKIPPED_TESTS = frozenset(
    {
        # Who may not make control groups, or limit any, cannot see the kernel hold jobs to limits.
        "tests/integration/test_cgroup.py:53 pytest.skip",
        # Faults that need root, or a tracer, cannot be injected without.
        "tests/chaos/site.py:58 pytest.skip",
    }
)
#: "path": real time has to pass there, and no event tells when it has.
SLEEPS_IN_TESTS = frozenset(
    {
        # Jobs that take a while: it is what they are for.
        "tests/chaos/app.py",
        # A network that is slow: bytes wait there because time has to pass.
        "tests/chaos/proxy.py",
        # The adapter of the real clock that tests bend.
        "tests/chaos/skewed.py",
        "tests/conformance/worker_app.py",
        "tests/histories/app.py",
        "tests/integration/naps.py",
        "tests/integration/shaky.py",
        # A user's own pause between tries: a client is not told when etcd has elected.
        "tests/conformance/etcd_site.py",
        # The same, of users of a cluster that is struck.
        "tests/chaos/planner.py",
    }
)

CORE = "master/tenure/master/core/"
CORE_MAY_IMPORT = frozenset(
    {
        "abc",
        "array",
        "bisect",
        "collections",
        "collections.abc",
        "dataclasses",
        "enum",
        "fractions",
        "functools",
        "hashlib",
        "heapq",
        "itertools",
        "math",
        "msgspec",
        "operator",
        "re",
        "struct",
        "types",
        "typing",
        "zlib",
    }
)
#: "path": what else one module of the core may import.
CORE_MODULE_MAY_IMPORT = {
    # Rules of calendars and zones: data that ship with a release, and no clock.
    f"{CORE}calendar.py": frozenset(
        {"cronsim", "datetime", "difflib", "importlib.resources", "zoneinfo"}
    ),
}
CORE_MAY_IMPORT_FROM_PROTOCOL = frozenset({"fence", "ids", "limits", "refusal", "vocabulary"})
#: Order by identity or by hash differs from run to run; files and terminals are I/O.
CORE_MAY_NOT_CALL = frozenset({"hash", "id", "input", "open", "print", "vars"})
UNSAFE_SERIALIZERS = frozenset({"cloudpickle", "dill", "marshal", "pickle", "shelve"})

# Written in two halves, so that this file keeps the rules too.
LEFTOVERS = re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME|XX" + r"X|HA" + r"CK)\b")
MACHINE_PATHS = re.compile(r"(?<![\w.])/(?:wor" + r"k|roo" + r"t|hom" + r"e)/[\w.]")
REGISTRY_HOSTS = re.compile(
    r"pythonhoste" + r"d|pypi\.or" + r"g/simple|npmj" + r"s\.org|deb\.debia" + r"n"
)
TEXT_SUFFIXES = {".cfg", ".json", ".md", ".proto", ".py", ".sh", ".toml", ".yaml", ".yml"}


@dataclass(frozen=True, slots=True)
class Module:
    """A hand-written module, read once for all rules.

    Attributes:
        path: Where it lies, relative, with slashes.
        nodes: All of its tree.
        calls: Each call, and the source text of what is called, e.g. `asyncio.sleep`.
    """

    path: str
    text: str
    tree: ast.Module
    nodes: tuple[ast.AST, ...]
    calls: tuple[tuple[ast.Call, str], ...]

    @property
    def is_product(self) -> bool:
        return self.path.startswith(tuple(f"{folder}/" for folder in PRODUCT))

    @property
    def is_test(self) -> bool:
        return self.path.startswith("tests/")


Rule = Callable[[Module], Iterator[str]]


def parse(path: str, text: str) -> Module:
    """A module as a rule sees it."""
    tree = ast.parse(text)
    nodes = (*ast.walk(tree),)
    calls = [(node, ast.unparse(node.func)) for node in nodes if isinstance(node, ast.Call)]
    return Module(path, text, tree, nodes, (*calls,))


def is_generated(path: Path) -> bool:
    """Whether `make protos` writes this module."""
    return path.stem.endswith(("_pb2", "_pb2_grpc"))


@pytest.fixture(scope="module", autouse=True)
def _forgotten() -> Iterator[None]:
    """So many nodes are a burden to the garbage collector: other tests go without them."""
    yield
    modules.cache_clear()


@cache
def modules() -> tuple[Module, ...]:
    """Every hand-written module of the repository."""
    found = []
    for folder in (*PRODUCT, *REST):
        for path in sorted((REPOSITORY / folder).rglob("*.py")):
            if not is_generated(path):
                found.append(parse(path.relative_to(REPOSITORY).as_posix(), path.read_text()))
    return tuple(found)


def text_files() -> Iterator[Path]:
    """Every hand-written text file that is committed."""
    yield from (REPOSITORY / ".ci").iterdir()
    yield REPOSITORY / "Makefile"
    for folder in (*PRODUCT, *REST, "docs", "deploy"):
        for path in (REPOSITORY / folder).rglob("*.*"):
            # What npm has installed is not ours, and has folders whose names look like files'.
            if path.is_file() and "node_modules" not in path.parts:
                yield path
    yield from (path for path in REPOSITORY.iterdir() if path.suffix in TEXT_SUFFIXES)


def functions(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, ast.AST, int]]:
    """Qualified name, node and lines (less the docstring) of each function, nested ones too."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            name = prefix + node.name
            documented = (ast.get_docstring(node, clean=False) or "").count("\n")
            yield name, node, (node.end_lineno or node.lineno) - node.lineno + 1 - documented
            yield from functions(node, f"{name}.")
        elif isinstance(node, ast.ClassDef):
            yield from functions(node, f"{prefix}{node.name}.")
        else:
            yield from functions(node, prefix)


def imports(module: Module) -> Iterator[tuple[int, str, tuple[str, ...]]]:
    """Line, module and imported names (none for a plain `import`) of each import."""
    for node in module.nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name, ()
        elif isinstance(node, ast.ImportFrom):
            source = "." * node.level + (node.module or "")
            yield node.lineno, source, tuple(alias.name for alias in node.names)


def core_imports(module: Module) -> Iterator[str]:
    """The core imports pure things only."""
    if not module.path.startswith(CORE):
        return
    for line, name, names in imports(module):
        if name == "tenure.protocol":
            allowed = set(names) <= CORE_MAY_IMPORT_FROM_PROTOCOL
        elif name.startswith("tenure.protocol."):
            allowed = name.removeprefix("tenure.protocol.") in CORE_MAY_IMPORT_FROM_PROTOCOL
        elif name.startswith("tenure.master"):
            allowed = f"{name}.".startswith("tenure.master.core.") or names == ("core",)
        else:
            allowed = name in CORE_MAY_IMPORT | CORE_MODULE_MAY_IMPORT.get(module.path, frozenset())
        if not allowed:
            yield f"{module.path}:{line} imports {name} {' '.join(names)}".rstrip()


def core_calls(module: Module) -> Iterator[str]:
    """The core does no I/O and orders nothing by hash or identity."""
    if module.path.startswith(CORE):
        for node, name in module.calls:
            if name in CORE_MAY_NOT_CALL:
                yield f"{module.path}:{node.lineno} calls {name}()"


def function_length(module: Module) -> Iterator[str]:
    """A function fits on a screen; the hot loops are excepted by name."""
    for name, _, lines in functions(module.tree):
        if lines > FUNCTION_LINES_MAX:
            yield f"{module.path}::{name}"


def module_length(module: Module) -> Iterator[str]:
    """A module is about one thing."""
    if module.text.count("\n") > MODULE_LINES_MAX:
        yield module.path


def docstrings(module: Module) -> Iterator[str]:
    """A module says what it is for."""
    if not ast.get_docstring(module.tree):
        yield f"{module.path} has no docstring"


def leftovers(module: Module) -> Iterator[str]:
    """What is unfinished is an issue, not a comment."""
    for number, line in enumerate(module.text.splitlines(), 1):
        if LEFTOVERS.search(line):
            yield f"{module.path}:{number} {line.strip()}"


def bare_tasks(module: Module) -> Iterator[str]:
    """Every task belongs to a TaskGroup, which sees its error and awaits its end."""
    for _, name in module.calls:
        owner, _, method = name.rpartition(".")
        if method == "ensure_future" or (
            method == "create_task"
            and (owner in ("", "asyncio") or owner.endswith(("loop", "loop()")))
        ):
            yield module.path
    for node in module.nodes:
        bases = node.bases if isinstance(node, ast.ClassDef) else []
        if any(ast.unparse(base) in ("asyncio.Task", "asyncio.Task[None]") for base in bases):
            yield module.path


def wait_for(module: Module) -> Iterator[str]:
    """`asyncio.timeout` bounds a wait; `wait_for` on a read cancels the whole gRPC call."""
    for node, name in module.calls:
        if name in ("asyncio.wait_for", "wait_for"):
            yield f"{module.path}:{node.lineno} calls {name}()"


def asserts(module: Module) -> Iterator[str]:
    """Safety checks are explicit raises: `python -O` drops an assert."""
    if module.is_product:
        for node in module.nodes:
            if isinstance(node, ast.Assert):
                yield f"{module.path}:{node.lineno} asserts"


def serializers(module: Module) -> Iterator[str]:
    """Nothing that runs code while it reads data."""
    for line, name, _ in imports(module):
        if name.partition(".")[0] in UNSAFE_SERIALIZERS:
            yield f"{module.path}:{line} imports {name}"


def sleeps_in_tests(module: Module) -> Iterator[str]:
    """A test waits for an event or on the virtual clock; `asyncio.sleep(0)` only yields."""
    if module.is_test:
        for node, name in module.calls:
            sleeps = name in ("time.sleep", "asyncio.sleep", "sleep")
            if sleeps and ast.unparse(node) != "asyncio.sleep(0)":
                yield module.path


def skipped_tests(module: Module) -> Iterator[str]:
    """A test runs or does not exist."""
    if module.is_test:
        for node in module.nodes:
            if isinstance(node, ast.Attribute):
                name = ast.unparse(node)
                if re.fullmatch(r"pytest\.(mark\.)?(skip|skipif|xfail|importorskip)", name):
                    yield f"{module.path}:{node.lineno} {name}"


def undocumented_tests(module: Module) -> Iterator[str]:
    """A test's docstring states the property that it keeps."""
    if module.is_test and Path(module.path).name.startswith("test_"):
        for name, node, _ in functions(module.tree):
            plain = name.rpartition(".")[2]
            if plain.startswith("test_") and not ast.get_docstring(node):  # type: ignore[arg-type]
                yield f"{module.path}::{name} has no docstring"


def pinned_examples(module: Module) -> Iterator[str]:
    """How many examples a property is tried with is for the profiles to say: tests/conftest.py."""
    if module.is_test and module.path != "tests/conftest.py":
        for node in module.nodes:
            if isinstance(node, ast.keyword) and node.arg == "max_examples":
                yield module.path


def suites(module: Module) -> Iterator[str]:
    """Every test lies in a suite that `make test` runs."""
    parts = module.path.split("/")
    if module.is_test and parts[-1].startswith("test_") and parts[1] not in SUITES:
        yield f"{module.path} is in no suite"


#: rule -> the offences that are allowed, by name.
RULES: dict[Rule, frozenset[str]] = {
    core_imports: frozenset(),
    core_calls: frozenset(),
    function_length: LONG_FUNCTIONS,
    module_length: LONG_MODULES,
    docstrings: frozenset(),
    leftovers: frozenset(),
    bare_tasks: BARE_TASKS,
    wait_for: frozenset(),
    asserts: frozenset(),
    serializers: frozenset(),
    sleeps_in_tests: SLEEPS_IN_TESTS,
    skipped_tests: SKIPPED_TESTS,
    undocumented_tests: frozenset(),
    pinned_examples: frozenset(),
    suites: frozenset(),
}

#: rule -> where a planted module lies, and its text.
PLANTED: list[tuple[Rule, str, str]] = [
    (core_imports, f"{CORE}planted.py", "import time"),
    (core_imports, f"{CORE}planted.py", "import os.path"),
    (core_imports, f"{CORE}planted.py", "from tenure.protocol import errors, ids"),
    (core_imports, f"{CORE}planted.py", "from tenure.protocol.errors import Fenced"),
    (core_imports, f"{CORE}planted.py", "from tenure.v1 import jobs_pb2"),
    (core_imports, f"{CORE}planted.py", "from tenure.master import node"),
    (core_imports, f"{CORE}planted.py", "from . import record"),
    (core_imports, f"{CORE}planted.py", "def f() -> None:\n    import random"),
    (core_imports, f"{CORE}planted.py", "from zoneinfo import ZoneInfo"),
    (core_calls, f"{CORE}planted.py", "x = sorted([], key=lambda r: id(r))"),
    (function_length, "master/a.py", "def f():\n" + "    x = 1\n" * FUNCTION_LINES_MAX),
    (function_length, "tests/a.py", "class A:\n async def f():\n" + "  x = 1\n" * 70),
    (module_length, "client/a.py", "x = 1\n" * (MODULE_LINES_MAX + 1)),
    (docstrings, "worker/a.py", "x = 1"),
    (leftovers, "worker/a.py", "x = 1  # FIX" + "ME later"),
    (bare_tasks, "master/a.py", "asyncio.create_task(f())"),
    (bare_tasks, "master/a.py", "create_task(f())"),
    (bare_tasks, "master/a.py", "asyncio.ensure_future(f())"),
    (bare_tasks, "master/a.py", "self._loop.create_task(f())"),
    (bare_tasks, "master/a.py", "asyncio.get_running_loop().create_task(f())"),
    (bare_tasks, "master/a.py", "class A(asyncio.Task[None]): ..."),
    (wait_for, "worker/a.py", "asyncio.wait_for(call.read(), 5)"),
    (asserts, "master/a.py", "assert x"),
    (serializers, "worker/a.py", "from pickle import loads"),
    (sleeps_in_tests, "tests/unit/test_a.py", "time.sleep(1)"),
    (sleeps_in_tests, "tests/unit/test_a.py", "asyncio.sleep(1)"),
    (pinned_examples, "tests/unit/test_a.py", "@settings(max_examples=9)\ndef test_a(): ..."),
    (skipped_tests, "tests/unit/test_a.py", "@pytest.mark.skip\ndef test_a(): ..."),
    (skipped_tests, "tests/unit/test_a.py", "pytest.importorskip('x')"),
    (undocumented_tests, "tests/unit/test_a.py", "def test_a(): ..."),
    (suites, "tests/lost/test_a.py", "x = 1"),
]

#: What the same rules must let pass.
ALLOWED: list[tuple[Rule, str, str]] = [
    (core_imports, f"{CORE}planted.py", "from tenure.protocol import ids, limits"),
    (core_imports, f"{CORE}planted.py", "from tenure.protocol.ids import JobId\nimport heapq"),
    (core_imports, f"{CORE}planted.py", "from tenure.master.core import record"),
    (core_imports, f"{CORE}planted.py", "from tenure.master.core.record import JobRecord"),
    (core_imports, f"{CORE}calendar.py", "from zoneinfo import ZoneInfo"),
    (core_imports, "master/tenure/master/node/planted.py", "import time"),
    (function_length, "master/a.py", "def f():\n" + "    x = 1\n" * (FUNCTION_LINES_MAX - 1)),
    (bare_tasks, "master/a.py", "group.create_task(f())"),
    (wait_for, "master/a.py", "condition.wait_for(ready)"),
    (asserts, "tests/unit/test_a.py", "assert x"),
    (sleeps_in_tests, "examples/a.py", "time.sleep(1)"),
    (sleeps_in_tests, "tests/unit/test_a.py", "asyncio.sleep(0)"),
]


def name_of(value: object) -> str:
    """Shows a rule by its name in a test's id."""
    return getattr(value, "__name__", "")


@pytest.mark.parametrize("rule", RULES, ids=name_of)
def test_repository_keeps_rule(rule: Rule) -> None:
    """No module breaks the rule, and its list of exceptions names nothing that keeps it."""
    offences = {offence for module in modules() for offence in rule(module)}

    assert sorted(offences - RULES[rule]) == [], rule.__doc__
    assert sorted(RULES[rule] - offences) == [], "no exception is needed here any more"


@pytest.mark.parametrize(("rule", "path", "text"), PLANTED, ids=name_of)
def test_rule_finds_planted_offence(rule: Rule, path: str, text: str) -> None:
    """Each rule can fail."""
    assert list(rule(parse(path, text)))


@pytest.mark.parametrize(("rule", "path", "text"), ALLOWED, ids=name_of)
def test_rule_lets_good_code_pass(rule: Rule, path: str, text: str) -> None:
    """A rule does not refuse what looks like an offence and is none."""
    assert list(rule(parse(path, text))) == []


def test_every_rule_has_a_planted_offence() -> None:
    """A rule that was never seen to fail proves nothing."""
    assert {rule for rule, _, _ in PLANTED} == set(RULES)


def test_namespace_has_no_init_and_portions_are_typed() -> None:
    """`tenure` stays a PEP 420 namespace, and each portion ships its types."""
    inits = [path for folder in PRODUCT for path in (REPOSITORY / folder).glob("tenure/__init__.*")]
    untyped = [name for name in PORTIONS if not (REPOSITORY / name / "py.typed").is_file()]

    assert inits == []
    assert untyped == []


def test_text_names_no_machine() -> None:
    """Nothing that is committed depends on one machine's folders or on one registry's address."""
    offences = []
    for path in text_files():
        if path.suffix in TEXT_SUFFIXES or not path.suffix:
            for number, line in enumerate(path.read_text().splitlines(), 1):
                if MACHINE_PATHS.search(line) or REGISTRY_HOSTS.search(line):
                    offences.append(f"{path.relative_to(REPOSITORY)}:{number} {line.strip()}")

    assert offences == []


@pytest.mark.parametrize("text", ["cd /wor" + "k/main", "'/roo" + "t/.venv'", "(/hom" + "e/me/x)"])
def test_machine_paths_are_found(text: str) -> None:
    """The pattern for machine paths can fail."""
    assert MACHINE_PATHS.search(text)
