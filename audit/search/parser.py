"""Text to expression, or one refusal that points at the character.

Pure.  The grammar, also in docs/reports.md:

    filter      = [ or ]                                    nothing at all asks for everything
    or          = and { "or" and }
    and         = not { "and" not }
    not         = "not" not | "(" or ")" | comparison
    comparison  = field sign value | field [ "not" ] "in" "(" value { "," value } ")"
    sign        = "=" | "!=" | "<" | "<=" | ">" | ">="      the last four for `time` and `index`
"""

from __future__ import annotations

from collections.abc import Callable

from audit.errors import FilterRefused
from audit.search.expression import EVERYTHING, Equal, Expression, Not, Within, all_of, any_of
from audit.search.fields import RANGE_END, RANGE_FIELDS, TEXT_FIELDS
from audit.search.moments import moment
from audit.search.tokens import Token, TokenKind, cut

MAX_DEPTH = 32
MAX_COMPARISONS = 64
_SIGNS = ("=", "!=", "<", "<=", ">", ">=")


def parse_filter(text: str) -> Expression:
    """Return what the text means.

    Raises:
        FilterRefused: it means nothing, or more than is evaluated; `at` is the character.
    """
    return _Parser(cut(text)).filter()


class _Parser:
    def __init__(self, tokens: tuple[Token, ...]) -> None:
        self._tokens = tokens
        self._place = 0
        self._num_comparisons = 0

    def filter(self) -> Expression:
        if self._peek().kind is TokenKind.END:
            return EVERYTHING
        expression = self._or(0)
        if self._peek().kind is not TokenKind.END:
            raise self._refused("expected `and`, `or` or the end")
        return expression

    def _or(self, depth: int) -> Expression:
        return self._joined("or", depth, self._and, any_of)

    def _and(self, depth: int) -> Expression:
        return self._joined("and", depth, self._not, all_of)

    def _joined(
        self,
        word: str,
        depth: int,
        part: Callable[[int], Expression],
        join: Callable[[list[Expression], int], Expression],
    ) -> Expression:
        at = self._peek().at
        parts = [part(depth)]
        while self._take(word):
            parts.append(part(depth))
        return join(parts, at)

    def _not(self, depth: int) -> Expression:
        if depth > MAX_DEPTH:
            raise self._refused(f"nested more than {MAX_DEPTH} deep")
        at = self._peek().at
        if self._take("not"):
            return Not(self._not(depth + 1), at)
        if self._take("("):
            inner = self._or(depth + 1)
            self._require(")")
            return inner
        return self._comparison()

    def _comparison(self) -> Expression:
        name = self._field()
        at = self._peek().at
        negated = self._take("not")
        if self._take("in"):
            expression = self._one_of(name)
            return Not(expression, at) if negated else expression
        sign = self._peek()
        if negated or sign.kind is not TokenKind.SIGN or sign.text not in _SIGNS:
            raise self._refused(
                "expected `in`" if negated else "expected =, !=, in, or for time and index also < <= > >="
            )
        self._place += 1
        if name not in RANGE_FIELDS and sign.text not in ("=", "!="):
            raise FilterRefused(f"{name} is compared by = and != only", at=sign.at)
        return self._compared(name, sign, self._value())

    def _one_of(self, name: str) -> Expression:
        at = self._peek().at
        self._require("(")
        equal = Token(TokenKind.SIGN, "=", at)
        parts = [self._compared(name, equal, self._value())]
        while self._take(","):
            parts.append(self._compared(name, equal, self._value()))
        self._require(")")
        return any_of(parts, at)

    def _compared(self, name: str, sign: Token, value: Token) -> Expression:
        self._num_comparisons += 1
        if self._num_comparisons > MAX_COMPARISONS:
            raise FilterRefused(f"more than {MAX_COMPARISONS} comparisons", at=value.at)
        if name not in RANGE_FIELDS:
            equal = Equal(name, value.text)
            return equal if sign.text == "=" else Not(equal, sign.at)
        low, high = _stretch(name, value)
        match sign.text:
            case "=":
                return Within(name, low, high)
            case "!=":
                return Not(Within(name, low, high), sign.at)
            case "<":
                return Within(name, 0, low)
            case "<=":
                return Within(name, 0, high)
            case ">":
                return Within(name, high, RANGE_END)
        return Within(name, low, RANGE_END)

    def _field(self) -> str:
        token = self._peek()
        if token.kind is not TokenKind.WORD or token.text not in (*TEXT_FIELDS, *RANGE_FIELDS):
            raise self._refused(f"expected a field: {', '.join(sorted((*TEXT_FIELDS, *RANGE_FIELDS)))}")
        self._place += 1
        return token.text

    def _value(self) -> Token:
        token = self._peek()
        if token.kind is TokenKind.QUOTED or (token.kind is TokenKind.WORD and not _is_keyword(token)):
            self._place += 1
            return token
        raise self._refused("expected a value; one that is no plain word stands in double quotes")

    def _peek(self) -> Token:
        return self._tokens[self._place]

    def _take(self, word: str) -> bool:
        token = self._peek()
        if token.kind in (TokenKind.WORD, TokenKind.SIGN) and token.text.lower() == word:
            self._place += 1
            return True
        return False

    def _require(self, sign: str) -> None:
        if not self._take(sign):
            raise self._refused(f"expected {sign}")

    def _refused(self, what: str) -> FilterRefused:
        return FilterRefused(what, at=self._peek().at)


def _is_keyword(token: Token) -> bool:
    return token.text.lower() in ("and", "or", "not", "in")


def _stretch(name: str, value: Token) -> tuple[int, int]:
    text = value.text
    if name == "index":
        if not (text.isascii() and text.isdigit() and len(text) <= len(str(RANGE_END)) and int(text) < RANGE_END):
            raise FilterRefused(f"an index is a whole number below {RANGE_END}", at=value.at)
        return int(text), int(text) + 1
    try:
        return moment(text)
    except ValueError as error:
        raise FilterRefused(str(error), at=value.at) from error
