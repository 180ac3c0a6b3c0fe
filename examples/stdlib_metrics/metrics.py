"""What a Python module looks like in numbers: pure functions from source text to metrics.

Complexity is McCabe's cyclomatic number ("A Complexity Measure", IEEE TSE 2(4), 1976): one, plus
one for each place where a function's control flow can fork. Forks are `if`, `elif`, conditional
expressions, loops, `except` clauses, `case` clauses with something to match, `assert`, the `for`
and `if` of a comprehension, and each operand of `and`/`or` after the first.
"""

from __future__ import annotations

import ast
import sysconfig
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

#: Statements that indent what they hold; `elif` is taken as the `if` it belongs to.
_BLOCKS = (
    ast.If,
    ast.For,
    ast.AsyncFor,
    ast.While,
    ast.With,
    ast.AsyncWith,
    ast.Try,
    ast.TryStar,
    ast.Match,
)
#: Nodes that are one fork each.
_FORKS = (
    ast.If,
    ast.IfExp,
    ast.For,
    ast.AsyncFor,
    ast.While,
    ast.ExceptHandler,
    ast.Assert,
)
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
#: Folders below the standard library that hold what was installed beside it.
_FOREIGN_FOLDERS = frozenset({"site-packages", "dist-packages", "__pycache__"})


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionMetrics:
    """One function or method."""

    #: Dotted path inside its module, for example `Popen._communicate`.
    name: str
    line: int
    complexity: int
    #: How many block statements the deepest statement sits in; 0 for a flat function.
    nesting: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleMetrics:
    """One module's source."""

    path: str
    size_bytes: int
    lines: int
    functions: int
    classes: int
    #: The deepest nesting of block statements, module level included.
    nesting_max: int
    #: Sum over all functions, plus the forks at module and class level.
    complexity: int
    #: The function with the highest complexity; None in a module without functions.
    worst: FunctionMetrics | None


@dataclass(slots=True, eq=False)
class _Scope:
    """Counts of the function, or of the module's top level, that is being walked."""

    name: str
    line: int
    forks: int = 0
    nesting: int = 0

    def function(self) -> FunctionMetrics:
        return FunctionMetrics(
            name=self.name, line=self.line, complexity=1 + self.forks, nesting=self.nesting
        )


def measure_source(source: bytes, path: str) -> ModuleMetrics:
    """Measures one module.

    Args:
        source: The file's bytes; their encoding is found as the interpreter finds it.
        path: What to call it in the result and in errors.

    Raises:
        SyntaxError: This interpreter cannot parse it.
    """
    with warnings.catch_warnings():
        # Old files hold invalid escape sequences, which are no concern of a measurement.
        warnings.simplefilter("ignore")
        tree = ast.parse(source, filename=path)
    top = _Scope(name="", line=0)
    functions: list[_Scope] = []
    classes = _walk(tree, top, functions)
    worst = max(functions, key=lambda scope: (scope.forks, -scope.line), default=None)
    return ModuleMetrics(
        path=path,
        size_bytes=len(source),
        lines=source.count(b"\n") + (not source.endswith(b"\n") and source != b""),
        functions=len(functions),
        classes=classes,
        nesting_max=max(scope.nesting for scope in [top, *functions]),
        complexity=top.forks + sum(1 + scope.forks for scope in functions),
        worst=worst.function() if worst else None,
    )


def _walk(tree: ast.AST, top: _Scope, functions: list[_Scope]) -> int:
    """Fills the scopes and returns the number of classes.

    The walk keeps its own stack: generated code nests expressions deeper than Python recurses.
    """
    classes = 0
    pending: list[tuple[ast.AST, _Scope, str, int]] = [(tree, top, "", 0)]
    while pending:
        node, scope, prefix, depth = pending.pop()
        if isinstance(node, _FUNCTIONS):
            scope = _Scope(name=prefix + node.name, line=node.lineno)
            functions.append(scope)
            prefix, depth = f"{scope.name}.", 0
        elif isinstance(node, ast.ClassDef):
            classes += 1
            prefix = f"{prefix}{node.name}."
        scope.forks += _forks(node)
        scope.nesting = max(scope.nesting, depth)
        for child in ast.iter_child_nodes(node):
            inner = isinstance(child, _BLOCKS) and not _is_elif(node, child)
            pending.append((child, scope, prefix, depth + inner))
    return classes


def _is_elif(parent: ast.AST, child: ast.AST) -> bool:
    """Whether child is the `elif` (or the lone `if` below `else`) of parent."""
    return isinstance(parent, ast.If) and isinstance(child, ast.If) and parent.orelse == [child]


def _forks(node: ast.AST) -> int:
    """How many forks this node adds by itself."""
    if isinstance(node, _FORKS):
        return 1
    if isinstance(node, ast.BoolOp):
        return len(node.values) - 1
    if isinstance(node, ast.comprehension):
        return 1 + len(node.ifs)
    if isinstance(node, ast.match_case):
        catches_all = isinstance(node.pattern, ast.MatchAs) and node.pattern.pattern is None
        return 0 if catches_all and node.guard is None else 1
    return 0


def stdlib_root() -> Path:
    """Where the standard library of the running interpreter lies."""
    return Path(sysconfig.get_paths()["stdlib"])


def stdlib_modules() -> list[Path]:
    """Every Python file of the standard library, its own tests and their data included."""
    return sorted(_python_files(stdlib_root()))


def _python_files(root: Path) -> Iterator[Path]:
    for path in root.rglob("*.py"):
        if _FOREIGN_FOLDERS.isdisjoint(path.relative_to(root).parts) and path.is_file():
            yield path
