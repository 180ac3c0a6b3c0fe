"""The filter language: what is read is what was meant, and what cannot be read is pointed at."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenure.master.node.filter import And, Expression, Not, Or, Restriction, parse
from tenure.protocol.errors import Rejected
from tenure.protocol.limits import FILTER_CHARS_MAX, FILTER_DEPTH_MAX
from tenure.protocol.refusal import Reason

FIELDS = ("state", "queue", "labels.app/x-y", "error.type", "ORDER", "a-b")
OPERATORS = ("=", "!=", "<", "<=", ">", ">=", ":")
#: What needs no quotes.
BARE = re.compile(r"""[^\s()"'=<>!,*\\]+""")


def shape(expression: Expression | None) -> Expression | None:
    """The same without positions."""
    match expression:
        case Restriction(field, operator, value, prefix):
            return Restriction(field, operator, value, prefix, 0, 0)
        case Not(term):
            return Not(bare(term))
        case And(terms):
            return And(tuple(bare(term) for term in terms))
        case Or(terms):
            return Or(tuple(bare(term) for term in terms))
    return None


def bare(expression: Expression) -> Expression:
    """``shape`` of what is there."""
    found = shape(expression)
    assert found is not None
    return found


def restriction(field: str, operator: str, value: str, *, prefix: bool = False) -> Restriction:
    """One without a position."""
    return Restriction(field, operator, value, prefix, 0, 0)


RESTRICTIONS = st.builds(
    restriction,
    st.sampled_from(FIELDS),
    st.sampled_from(OPERATORS),
    st.text(max_size=6),
    prefix=st.booleans(),
)
EXPRESSIONS: st.SearchStrategy[Expression] = st.recursive(
    RESTRICTIONS,
    lambda inner: st.one_of(
        st.builds(Not, inner),
        st.builds(And, st.lists(inner, min_size=2, max_size=3).map(tuple)),
        st.builds(Or, st.lists(inner, min_size=2, max_size=3).map(tuple)),
    ),
    max_leaves=8,
)


def text_of(expression: Expression, binds: int = 0, *, minus: bool = False) -> str:
    """A filter that means the expression; parentheses where what is around it binds closer."""
    match expression:
        case Restriction(field, operator, value, prefix):
            star = "*" if prefix else ""
            if BARE.fullmatch(value):
                return f"{field}{operator}{value}{star}"
            escaped = re.sub(r'(["\\*])', r"\\\1", value)
            return f'{field} {operator} "{escaped}{star}"'
        case Not(term):
            text, own = ("-" if minus else "NOT ") + text_of(term, 3, minus=minus), 2
        case Or(terms):
            text, own = " OR ".join(text_of(term, 2, minus=minus) for term in terms), 1
        case And(terms):
            text, own = " AND ".join(text_of(term, 1, minus=minus) for term in terms), 0
    return f"({text})" if own < binds or (own == binds and own < 2) else text


def refusal_of(text: str) -> Rejected | None:
    """Why a text is refused; None: it is read."""
    try:
        parse(text)
    except Rejected as error:
        return error
    return None


@given(EXPRESSIONS, st.booleans())
def test_what_is_written_is_read(expression: Expression, minus: bool) -> None:
    """Any expression, written down, is read as the same one: quotes, stars, binding and all."""
    assert shape(parse(text_of(expression, minus=minus))) == expression


@given(
    st.one_of(
        st.text(max_size=40),
        st.lists(
            st.sampled_from(
                [*FIELDS, *OPERATORS, "AND", "OR", "NOT", "-", "(", ")", '"', "*", "\\"]
            )
        ).map(" ".join),
    )
)
def test_nonsense_is_refused_where_it_begins(text: str) -> None:
    """Whatever comes in, it is read or refused, with a position inside of it or at its end."""
    error = refusal_of(text)
    if error is not None:
        assert error.reason is Reason.INVALID_ARGUMENT
        assert error.field == "filter"
        assert 1 <= int(error.metadata["position"]) <= len(text) + 1
        assert f"at character {error.metadata['position']} " in error.message


def test_or_binds_tighter_than_and() -> None:
    """AIP-160: ``a AND b OR c`` is ``a AND (b OR c)``."""
    a, b, c = (restriction(field, "=", "1") for field in "abc")

    assert shape(parse("a = 1 AND b = 1 OR c = 1")) == And((a, Or((b, c))))
    assert shape(parse("a=1 OR b=1 AND c=1")) == And((Or((a, b)), c))
    assert shape(parse("NOT a = 1 OR -b:1")) == Or((Not(a), Not(restriction("b", ":", "1"))))


@pytest.mark.parametrize("text", ["", "  ", "\n"])
def test_nothing_matches_everything(text: str) -> None:
    """An empty filter is none."""
    assert parse(text) is None


@pytest.mark.parametrize(
    ("text", "value", "prefix"),
    [
        ("at >= 2026-01-31T09:00:00+02:00", "2026-01-31T09:00:00+02:00", False),
        ("n = app.jobs.*", "app.jobs.", True),
        ("n = 'it''", None, False),
        (r"n = 'it\'s'", "it's", False),
        (r'n = "100 %\*"', "100 %*", False),
        (r'n = "back\\*"', "back\\", True),
        ('n = ""', "", False),
        ("n:*", "", True),
        ("n = -1", "-1", False),
    ],
)
def test_values(text: str, value: str | None, prefix: bool) -> None:
    """Times need no quotes; a backslash in quotes makes the next sign an ordinary one."""
    if value is None:
        with pytest.raises(Rejected):
            parse(text)
    else:
        found = parse(text)
        assert isinstance(found, Restriction)
        assert (found.value, found.prefix) == (value, prefix)


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("name", 1),
        ("name = a queue = b", 10),
        ("name = a and queue = b", 10),
        ("name =", 7),
        ("(name = a", 10),
        ("name = a)", 9),
        ('name = "a', 8),
        ("name = a*b", 8),
        ("name = a AND", 13),
        ("NOT NOT name = a", 5),
        ("f(x)", 1),
    ],
)
def test_positions(text: str, position: int) -> None:
    """An error points at what is wrong, counted from 1."""
    with pytest.raises(Rejected) as refused:
        parse(text)

    assert refused.value.metadata["position"] == str(position)


def test_a_filter_is_bounded() -> None:
    """Neither its length nor its depth can hurt a master."""
    deep = "(" * FILTER_DEPTH_MAX + "a = 1" + ")" * FILTER_DEPTH_MAX
    assert parse(deep) is not None
    for text in (f"({deep})", "a = 1 AND " * 1_000 + "a = 1", "(" * FILTER_CHARS_MAX):
        with pytest.raises(Rejected, match=r"deep|longer"):
            parse(text)
