"""The filter language of lists, counts and watches: text in, a tree of restrictions out.

A subset of AIP-160 (https://google.aip.dev/160), whose grammar it keeps:

```
filter      = [ expression ]
expression  = factor { "AND" factor }          OR binds tighter than AND
factor      = term { "OR" term }
term        = [ "NOT" | "-" ] simple
simple      = "(" expression ")" | restriction
restriction = field ( "=" | "!=" | "<" | "<=" | ">" | ">=" | ":" ) value
value       = text without spaces | "quoted" | 'quoted'; a last * matches any rest
```
Left out are bare words (a search in all fields), terms side by side without AND, and functions.
What fields there are, and what a value may be, is ``selection``'s.
"""

import re
from dataclasses import dataclass
from typing import Final, TypeAlias

from tenure.protocol.errors import Rejected
from tenure.protocol.limits import FILTER_CHARS_MAX, FILTER_DEPTH_MAX
from tenure.protocol.refusal import Reason

_SPACE: Final = re.compile(r"\s*")
_WORD: Final = re.compile(r"""[^\s()"'=<>!:,]+""")
_OPERATOR: Final = re.compile(r"<=|>=|!=|[=<>:]")
#: A time has colons in it, so an unquoted value may.
_BARE: Final = re.compile(r"""[^\s()"'=<>!,]+""")
_QUOTED: Final = re.compile(r""""(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'""", re.S)
_ESCAPE: Final = re.compile(r"\\(.)", re.S)
#: A star that no backslash takes its meaning from.
_STAR: Final = re.compile(r"(?<!\\)(?:\\\\)*\*")
_KEYWORDS: Final = frozenset({"AND", "OR", "NOT"})


@dataclass(frozen=True, slots=True)
class Restriction:
    """One comparison.

    Attributes:
        field: A path, as it was written.
        operator: ``=``, ``!=``, ``<``, ``<=``, ``>``, ``>=`` or ``:``.
        value: Without quotes, escapes and the last star.
        prefix: Whether a star was last: any rest matches.
        at: The position of the field in the filter, from 1.
        value_at: The position of the value.
    """

    field: str
    operator: str
    value: str
    prefix: bool
    at: int
    value_at: int


@dataclass(frozen=True, slots=True)
class Not:
    """What its term is not."""

    term: "Expression"


@dataclass(frozen=True, slots=True)
class And:
    """All of its terms: two or more."""

    terms: "tuple[Expression, ...]"


@dataclass(frozen=True, slots=True)
class Or:
    """Any of its terms: two or more."""

    terms: "tuple[Expression, ...]"


Expression: TypeAlias = Restriction | Not | And | Or


def wrong(at: int, why: str) -> Rejected:
    """The error for a filter that cannot be used, and the position of what is wrong in it."""
    return Rejected(
        f"expected a valid filter, but at character {at} {why}",
        reason=Reason.INVALID_ARGUMENT,
        metadata={"field": "filter", "position": str(at)},
        field="filter",
    )


def parse(text: str) -> Expression | None:
    """Reads a filter; None: it is empty, so everything matches.

    Raises:
        Rejected: INVALID_ARGUMENT with the position, for what is not of this language, too long
            or too deep.
    """
    if len(text) > FILTER_CHARS_MAX:
        raise wrong(FILTER_CHARS_MAX + 1, f"it is longer than {FILTER_CHARS_MAX} characters")
    return _Parser(text).filter()


class _Parser:
    """A recursive descent, one method for each rule of the grammar."""

    def __init__(self, text: str) -> None:
        self._text = text
        #: Behind what was read, and behind the spaces after it.
        self._next = 0
        self._depth = 0
        self._skip(0)

    def filter(self) -> Expression | None:
        if self._ended():
            return None
        found = self._expression()
        if not self._ended():
            raise self._wrong(f"there is {self._here()} where AND, OR or the end would fit")
        return found

    def _expression(self) -> Expression:
        terms = [self._factor()]
        while self._take_keyword("AND"):
            terms.append(self._factor())
        return terms[0] if len(terms) == 1 else And(tuple(terms))

    def _factor(self) -> Expression:
        terms = [self._term()]
        while self._take_keyword("OR"):
            terms.append(self._term())
        return terms[0] if len(terms) == 1 else Or(tuple(terms))

    def _term(self) -> Expression:
        if self._take_keyword("NOT") or self._take("-"):
            return Not(self._simple())
        return self._simple()

    def _simple(self) -> Expression:
        if not self._take("("):
            return self._restriction()
        self._depth += 1
        if self._depth > FILTER_DEPTH_MAX:
            raise self._wrong(f"parentheses are more than {FILTER_DEPTH_MAX} deep")
        found = self._expression()
        if not self._take(")"):
            raise self._wrong(f"there is {self._here()} where ')' is missing")
        self._depth -= 1
        return found

    def _restriction(self) -> Restriction:
        at = self._next
        word = _WORD.match(self._text, at)
        if word is None or word[0] in _KEYWORDS:
            raise self._wrong(f"there is {self._here()} where a field would fit")
        self._skip(word.end())
        operator = _OPERATOR.match(self._text, self._next)
        if operator is None:
            raise self._wrong(
                f"{word[0]!r} is not compared with anything: say FIELD = VALUE "
                "(AND, OR and NOT are in capitals)",
                at,
            )
        self._skip(operator.end())
        value_at = self._next
        value, prefix = self._value()
        return Restriction(word[0], operator[0], value, prefix, at + 1, value_at + 1)

    def _value(self) -> tuple[str, bool]:
        at = self._next
        if quoted := _QUOTED.match(self._text, at):
            self._skip(quoted.end())
            text = quoted[0][1:-1]
        elif bare := _BARE.match(self._text, at):
            self._skip(bare.end())
            text = bare[0]
        elif self._text.startswith(('"', "'"), at):
            raise self._wrong("a quote is opened and not closed")
        else:
            raise self._wrong(f"there is {self._here()} where a value would fit")
        star = _STAR.search(text)
        if star is not None and star.end() < len(text):
            raise self._wrong(
                "'*' stands before the end of a value; it matches any rest at the end only "
                r"(as itself it is \* in quotes)",
                at,
            )
        body = text if star is None else text[:-1]
        return (_ESCAPE.sub(r"\1", body) if quoted else body), star is not None

    def _ended(self) -> bool:
        return self._next == len(self._text)

    def _skip(self, to: int) -> None:
        space = _SPACE.match(self._text, to)
        self._next = to if space is None else space.end()

    def _take(self, sign: str) -> bool:
        if not self._text.startswith(sign, self._next):
            return False
        self._skip(self._next + len(sign))
        return True

    def _take_keyword(self, keyword: str) -> bool:
        word = _WORD.match(self._text, self._next)
        if word is None or word[0] != keyword:
            return False
        self._skip(word.end())
        return True

    def _here(self) -> str:
        if self._ended():
            return "the end"
        word = _WORD.match(self._text, self._next)
        return repr(word[0][:40] if word else self._text[self._next])

    def _wrong(self, why: str, at: int | None = None) -> Rejected:
        return wrong((self._next if at is None else at) + 1, why)
