"""Changes the core and the journal piece by piece, and shows which changes no test notices.

The changes are mutmut's (other operators, other numbers, arguments left out, …); how they are tried
is our own, because a second for each would make it hours:

1. Pytest collects the tests once.
2. A forked child runs them all, and tells which of them call which function of the modules.
3. For each change a child is forked that gives the function under change its new code, in the place
   of the old one, and runs the tests that call it until one fails. Nothing is written to disk.

The code of a function is exchanged in the function object itself, so whoever has imported it has
the change. To begin with, each module's most called function is exchanged for itself, which no test
may notice. Not changed: what runs at import (constants and tables), decorators, defaults of
parameters, and sentences, which are for people to read.

A change that nothing notices is explained in ``tests/mutation.toml``, or survives: then the run
fails. So does an explanation of a change that does not survive any more.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import inspect
import os
import resource
import sys
import threading
import time
import tomllib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import CodeType, FrameType, FunctionType, ModuleType
from typing import Final, cast

import libcst
import msgspec
import pytest
from hypothesis import Phase, settings
from libcst.metadata import MetadataWrapper
from mutmut.mutation.file_mutation import Mutation, MutationVisitor, deep_replace
from mutmut.mutation.mutators import mutation_operators
from mutmut.mutation.pragma_handling import IgnoredCode

REPOSITORY: Final = Path(__file__).resolve().parents[1]
EXPLANATIONS: Final = REPOSITORY / "tests" / "mutation.toml"
_SOURCES: Final = REPOSITORY / "master" / "tenure" / "master"
_UNIT: Final = "tests/unit/master"
#: What is to notice a change in a package's modules, or in one module.
_TESTS: Final = {
    "core": (f"{_UNIT}/core",),
    "journal": (f"{_UNIT}/journal",),
    "journal/backup": (f"{_UNIT}/journal", "tests/conformance/test_backup.py"),
    "journal/etcd": (
        f"{_UNIT}/journal/test_etcd.py",
        "tests/conformance/test_journal.py",
        "tests/conformance/test_etcd_journal.py",
    ),
    "journal/sqlite": (
        f"{_UNIT}/journal/test_sqlite.py",
        f"{_UNIT}/test_store.py",
        "tests/conformance/test_journal.py",
        "tests/conformance/test_sqlite_store.py",
    ),
}
#: Tests that measure, and the one that plays hundreds of histories of the whole core: what only it
#: notices deserves a test that says what is wrong.
_LEFT_OUT: Final = tuple(
    f"{_UNIT}/core/{test}"
    for test in ("test_machine.py", "test_memory.py", "test_tombstone.py::test_cost")
)
_COLUMNS: Final = ("changes", "noticed", "explained", "survive")
_OPTIONS: Final = (
    "-qqs",
    "--tb=no",
    "--no-summary",
    "-p",
    "no:cacheprovider",
    "-m",
    "not etcd and not nightly",
    "-W",
    "ignore::pytest.PytestAssertRewriteWarning",
)
#: A change may make a loop endless, or a list: how much longer the tests may take, and how much
#: more memory they may use, before that counts as noticed.
_SLOWER: Final = 5
_CPU_SECONDS_MIN: Final = 2
#: What a test of another module may take, traced, to be asked at all.
_CPU_SECONDS_MAX: Final = 0.15
_MORE_BYTES: Final = 1 << 30
_TEST_SECONDS_MAX: Final = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One change of one function.

    Attributes:
        module: As in ``core/attempt``.
        function: Its qualified name.
        old: The lines that differ, as they are; their indentation left out.
        new: The same as they become.
        code: The function's new code.
    """

    module: str
    function: str
    old: str
    new: str
    code: CodeType

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What an explanation names it by."""
        return self.module, self.function, self.old, self.new


def modules() -> list[str]:
    """All that can be named, as ``core/attempt``."""
    return [
        f"{package}/{path.stem}"
        for package in ("core", "journal")
        for path in sorted((_SOURCES / package).glob("*.py"))
        if path.stem != "__init__"
    ]


class _Visitor(MutationVisitor):
    """Mutmut's changes, in decorated functions too, and none of sentences and of defaults."""

    def __init__(self) -> None:
        super().__init__(mutation_operators, IgnoredCode(set(), set(), set()))

    def _skip_node_and_children(self, node: libcst.CSTNode) -> bool:
        if isinstance(node, libcst.SimpleString):
            return " " in node.value
        if isinstance(node, libcst.Parameters | libcst.Decorator):
            return True
        if isinstance(node, libcst.FunctionDef):
            return False
        return super()._skip_node_and_children(node)


def changes_of(name: str, path: Path) -> Iterator[Change]:
    """All changes of a module."""
    source = path.read_text()
    visitor = _Visitor()
    tree = MetadataWrapper(libcst.parse_module(source)).visit(visitor)
    functions = _functions(compile(source, str(path), "exec", dont_inherit=True))
    for mutation in visitor.mutations:
        if mutation.contained_by_top_level_function is None:
            continue
        changed = _source_with(tree, mutation)
        for function, code in _changed_functions(functions, changed, path):
            old, new = _differing(source.splitlines(), changed.splitlines())
            yield Change(module=name, function=function, old=old, new=new, code=code)


def _source_with(tree: libcst.Module, mutation: Mutation) -> str:
    """The module's source with the change; only the function or class it is in is walked."""
    body = list(tree.body)
    for index, statement in enumerate(body):
        inside = statement.body.body if isinstance(statement, libcst.ClassDef) else [statement]
        if any(node is mutation.contained_by_top_level_function for node in inside):
            changed = deep_replace(statement, mutation.original_node, mutation.mutated_node)
            body[index] = cast("libcst.BaseCompoundStatement", changed)
    return tree.with_changes(body=body).code


def _differing(before: Sequence[str], after: Sequence[str]) -> tuple[str, str]:
    """The lines from the first to the last that differ, as they are and as they become."""
    shorter = min(len(before), len(after))
    pairs = enumerate(zip(before, after, strict=False))
    first = next((at for at, (old, new) in pairs if old != new), shorter)
    behind = shorter - first
    pairs = enumerate(zip(reversed(before), reversed(after), strict=False))
    last = next((at for at, (old, new) in pairs if old != new or at == behind), behind)
    return _stripped(before[first : len(before) - last]), _stripped(
        after[first : len(after) - last]
    )


def _stripped(lines: Sequence[str]) -> str:
    return "\n".join(line.strip() for line in lines)


def _changed_functions(
    before: dict[str, CodeType], changed: str, path: Path
) -> Iterator[tuple[str, CodeType]]:
    """The function that the change is in, and its new code; none if it comes to the same code."""
    try:
        after = _functions(compile(changed, str(path), "exec", dont_inherit=True))
    except SyntaxError:
        return
    for name, code in before.items():
        new = after[name]
        if _plain(code) != _plain(new) and len(code.co_freevars) == len(new.co_freevars):
            yield name, new


def _functions(code: CodeType) -> dict[str, CodeType]:
    """The outermost functions of a module's code, or of a class's, by their qualified names."""
    found: dict[str, CodeType] = {}
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            if inner.co_flags & inspect.CO_NEWLOCALS:
                found[inner.co_qualname] = inner
            else:
                found |= _functions(inner)
    return found


def _plain(code: CodeType) -> tuple[object, ...]:
    """What a function does, without where it stands."""
    constants = tuple(
        _plain(value) if isinstance(value, CodeType) else (type(value), value)
        for value in code.co_consts
    )
    return code.co_code, constants, code.co_names, code.co_varnames, code.co_freevars


def live_functions(module: ModuleType) -> dict[str, FunctionType]:
    """The functions of an imported module, also those behind decorators, by qualified names."""
    found: dict[str, FunctionType] = {}

    def look(value: object) -> None:
        for name in ("fget", "func", "__func__", "__wrapped__"):
            inner = getattr(value, name, None)
            if inner is not None:
                look(inner)
        if isinstance(value, FunctionType) and value.__module__ == module.__name__:
            found.setdefault(value.__code__.co_qualname, value)

    for value in vars(module).values():
        look(value)
        if isinstance(value, type) and value.__module__ == module.__name__:
            for member in vars(value).values():
                look(member)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """What the tests do without a change.

    Attributes:
        callers: By file, then by function: the places of the tests that call it.
        seconds: How long each test takes, by its place.
    """

    callers: dict[str, dict[str, list[int]]]
    seconds: list[float]


class Trial:
    """A pytest plugin that, in the place of running the tests once, tries all changes on them."""

    def __init__(self, changes: dict[str, list[Change]], table: Table) -> None:
        self._changes = changes
        self._table = table
        self._failed = False

    def pytest_configure(self) -> None:
        """Few examples, the same each time, and none kept: a failure need not be a small one."""
        phases = (Phase.explicit, Phase.generate)
        settings.register_profile(
            "mutation", max_examples=20, derandomize=True, database=None, phases=phases
        )
        settings.load_profile("mutation")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Notes that a test failed."""
        self._failed = self._failed or report.failed

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Tries all changes."""
        if session.testsfailed:
            raise session.Interrupted("the tests cannot be collected")
        gc.collect()
        gc.freeze()
        baseline = self._baseline(session.items)
        for name, changes in self._changes.items():
            survivors = self._try_module(name, changes, session.items, baseline)
            self._table.add(name, changes, survivors)
        return True

    def _baseline(self, items: list[pytest.Item]) -> Baseline:
        """Runs all tests in a child, which must find nothing."""
        answer = in_child(partial(self._observe, items), cpu_seconds=None)
        if isinstance(answer, str):
            sys.exit(f"expected the tests to pass without a change, but {answer}")
        return msgspec.convert(answer, Baseline)

    def _observe(self, items: list[pytest.Item]) -> Baseline | str:
        callers: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
        seconds = []
        called: set[CodeType] = set()

        def trace(frame: FrameType, event: str, arg: object) -> None:
            called.add(frame.f_code)

        for place, item in enumerate(items):
            called.clear()
            began = time.process_time()
            sys.settrace(trace)
            threading.settrace(trace)
            self._run(item, items[place + 1] if place + 1 < len(items) else None)
            sys.settrace(None)
            threading.settrace(None)
            seconds.append(time.process_time() - began)
            if self._failed:
                return f"{item.nodeid} failed"
            for code in called:
                callers[code.co_filename][code.co_qualname].append(place)
        return Baseline(callers=callers, seconds=seconds)

    def _try_module(
        self, name: str, changes: list[Change], items: list[pytest.Item], baseline: Baseline
    ) -> list[Change]:
        """The changes that no test noticed."""
        survivors: list[Change] = []
        module = importlib.import_module(f"tenure.master.{name.replace('/', '.')}")
        if Path(module.__file__ or "") != _SOURCES / f"{name}.py":
            sys.exit(f"expected the tests to import {_SOURCES / name}.py, not {module.__file__}")
        functions = live_functions(module)
        if not changes:
            return survivors
        callers = {
            function: self._ordered(name, baseline, items, places)
            for function, places in baseline.callers.get(module.__file__ or "", {}).items()
        }

        def fate(function: str, code: CodeType) -> object:
            places = callers.get(function, [])
            seconds = sum(baseline.seconds[place] for place in places)
            run = partial(self._first_to_fail, functions[function], code, places, items, baseline)
            return in_child(run, cpu_seconds=max(_CPU_SECONDS_MIN, int(_SLOWER * seconds)))

        most = max(functions, key=lambda function: len(callers.get(function, [])))
        if (failed := fate(most, functions[most].__code__)) is not None:
            sys.exit(f"expected no test to notice that {most} stays as it is, but got {failed}")
        for change in changes:
            failed = fate(change.function, change.code)
            if failed is None:
                survivors.append(change)
            elif isinstance(failed, int):
                # What noticed one change of a function will often notice the next.
                callers[change.function].remove(failed)
                callers[change.function].insert(0, failed)
        return survivors

    def _ordered(
        self, name: str, baseline: Baseline, items: list[pytest.Item], places: list[int]
    ) -> list[int]:
        """The module's own tests first, then the quick ones of others; their slow ones never."""
        named = {Path(test).name for test in _TESTS.get(name, ())}
        own = {f"test_{name.rpartition('/')[2]}.py"} | named
        seconds = baseline.seconds
        first = [place for place in places if items[place].path.name in own]
        others = [
            place for place in places if place not in first and seconds[place] <= _CPU_SECONDS_MAX
        ]
        return sorted(first, key=seconds.__getitem__) + sorted(others, key=seconds.__getitem__)

    def _first_to_fail(
        self,
        function: FunctionType,
        code: CodeType,
        callers: list[int],
        items: list[pytest.Item],
        baseline: Baseline,
    ) -> int | None:
        """The place of the first test that fails with the code; None: it is not noticed."""
        function.__code__ = code
        for index, place in enumerate(callers):
            last = index + 1 == len(callers)
            _allow(max(_CPU_SECONDS_MIN, int(_SLOWER * baseline.seconds[place])))
            self._run(items[place], None if last else items[callers[index + 1]])
            if self._failed:
                return place
        return None

    def _run(self, item: pytest.Item, following: pytest.Item | None) -> None:
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)


def in_child(work: Callable[[], object], *, cpu_seconds: int | None) -> object:
    """Does the work in a forked child, and returns what it returned, or how it ended."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            _confine(cpu_seconds)
            answer = msgspec.msgpack.encode(work())
        except BaseException as error:  # noqa: BLE001 - whatever it was, the child ends here
            answer = msgspec.msgpack.encode(f"{type(error).__name__}: {error}")
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(answer)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        data = pipe.read()
    _, status = os.waitpid(child, 0)
    return (
        msgspec.msgpack.decode(data) if data else f"it ended by {os.waitstatus_to_exitcode(status)}"
    )


def _confine(cpu_seconds: int | None) -> None:
    """Takes the terminal from a child, and what a change could make it use up."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    if cpu_seconds is not None:
        resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds))
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        room = pages * resource.getpagesize() + _MORE_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (room, room))


def _allow(cpu_seconds: int) -> None:
    """Ends this child if its next test takes longer, and not only if all of them do."""
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(
        resource.RLIMIT_CPU, (min(most, int(time.process_time()) + 1 + cpu_seconds), most)
    )


def explanations(names: Iterable[str]) -> dict[tuple[str, str, str, str], str]:
    """Why changes of these modules survive, by what names them."""
    rows: list[dict[str, str]] = tomllib.loads(EXPLANATIONS.read_text())["survives"]
    return {
        (row["module"], row["function"], row["old"].strip(), row["new"].strip()): row["because"]
        for row in rows
        if row["module"] in names
    }


def _toml(key: tuple[str, str, str, str]) -> str:
    names = ("module", "function", "old", "new")
    lines = [f"{name} = '''{value}'''" for name, value in zip(names, key, strict=True)]
    return "\n".join(("[[survives]]", *lines, 'because = ""', "", ""))


class Table:
    """The rows that are printed, one a module, and what is to be printed below them."""

    def __init__(self, because: dict[tuple[str, str, str, str], str]) -> None:
        self._because = because
        self._stale = set(because)
        self._total: Counter[str] = Counter()
        self._write("module", _COLUMNS)

    def add(self, name: str, changes: list[Change], survivors: list[Change]) -> None:
        """Prints a module's row, and to stderr what survives, as it would be explained."""
        explained = [change for change in survivors if change.key in self._because]
        self._stale -= {change.key for change in explained}
        left = len(survivors) - len(explained)
        row = (len(changes), len(changes) - len(survivors), len(explained), left)
        self._total.update(dict(zip(_COLUMNS, row, strict=True)))
        self._write(name, row)
        for change in survivors:
            if change.key not in self._because:
                sys.stderr.write(_toml(change.key))

    def end(self) -> bool:
        """Prints the sum, and explanations of what does not survive; whether all is well."""
        self._write("all of them", [self._total[column] for column in _COLUMNS])
        for key in sorted(self._stale):
            sys.stderr.write(f"# does not survive\n{_toml(key)}")
        return not self._stale and not self._total["survive"]

    def _write(self, name: str, cells: Iterable[object]) -> None:
        sys.stdout.write(f"{name:20}" + "".join(f"{cell:>11}" for cell in cells) + "\n")
        sys.stdout.flush()


def main() -> int:
    """Tries all changes of the modules that were named, and prints what came of them."""
    known = modules()
    parser = argparse.ArgumentParser(prog="python -m tools.mutation", description=__doc__)
    parser.add_argument(
        "modules",
        nargs="*",
        metavar="MODULE",
        help="as in core/attempt journal/frame; default: all of them",
    )
    names: list[str] = parser.parse_args().modules or known
    if unknown := [name for name in names if name not in known]:
        parser.error(f"no such module: {', '.join(unknown)}; there are {', '.join(known)}")
    groups: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for name in names:
        groups[_TESTS.get(name) or _TESTS[name.partition("/")[0]]].append(name)
    table = Table(explanations(names))
    left_out = [f"--deselect={test}" for test in _LEFT_OUT]
    options = [*_OPTIONS, *left_out, "-o", f"timeout={_TEST_SECONDS_MAX}"]
    os.chdir(REPOSITORY)
    for tests, group in groups.items():
        changes = {name: list(changes_of(name, _SOURCES / f"{name}.py")) for name in group}
        if pytest.main([*options, *tests], plugins=[Trial(changes, table)]):
            return 1
    return 0 if table.end() else 1


if __name__ == "__main__":
    sys.exit(main())
