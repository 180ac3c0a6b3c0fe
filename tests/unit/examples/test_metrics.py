"""The measurements of the standard library example."""

from pathlib import Path

import pytest

from examples.stdlib_metrics.metrics import (
    ModuleMetrics,
    measure_source,
    stdlib_modules,
    stdlib_root,
)

BRANCHY = b"""\
class Outer:
    def flat(self):
        return 1

    def branchy(self, rows):
        for row in rows:
            if row and row.ok or row.late:
                continue
            elif row.bad:
                with row:
                    assert row
        def inner():
            return [x for x in rows if x]
        return inner

match 3:
    case 3: pass
    case _: pass
"""


def measure(source: bytes) -> ModuleMetrics:
    """Measures a source under a fixed name."""
    return measure_source(source, "sample.py")


def test_counts_of_a_small_module() -> None:
    """Functions, classes, lines and bytes are counted, nested ones included."""
    found = measure(BRANCHY)
    assert (found.functions, found.classes) == (3, 1)
    assert (found.lines, found.size_bytes) == (BRANCHY.count(b"\n"), len(BRANCHY))


def test_complexity_belongs_to_the_innermost_function() -> None:
    """A function's forks are its own: those of a nested function are not its parent's."""
    found = measure(BRANCHY)
    assert found.worst is not None
    # One, the loop, `if`, `and`, `or`, `elif`, `assert`.
    assert (found.worst.name, found.worst.complexity) == ("Outer.branchy", 7)
    # flat 1, branchy 7, inner 1 + 2 for its comprehension, the module's one fruitful `case`.
    assert found.complexity == 1 + 7 + 3 + 1


def test_elif_does_not_nest() -> None:
    """`elif` is as deep as its `if`: loop, `elif`, `with` make three."""
    assert measure(BRANCHY).nesting_max == 3


@pytest.mark.parametrize("source", [b"", b"x = 1", b"x = 1\n"])
def test_a_module_without_functions(source: bytes) -> None:
    """Tiny modules have no worst function, and a last line without a newline counts."""
    found = measure(source)
    assert found.worst is None
    assert (found.functions, found.complexity) == (0, 0)
    assert found.lines == (1 if source else 0)


def test_deep_expressions_do_not_recurse() -> None:
    """An expression nested deeper than Python's own recursion is measured."""
    assert measure(b"x = " + b"+".join([b"1"] * 2_000)).complexity == 0


def test_an_unparsable_file_is_a_syntax_error() -> None:
    """What this interpreter cannot parse raises SyntaxError, naming the file."""
    with pytest.raises(SyntaxError) as raised:
        measure(b"print 'hello'\n")
    assert raised.value.filename == "sample.py"


def test_the_input_is_the_standard_library_alone() -> None:
    """Hundreds of real files, none of them installed beside it."""
    modules = stdlib_modules()
    assert len(modules) > 300
    assert Path(stdlib_root() / "ast.py") in modules
    assert not any("site-packages" in path.parts for path in modules)
