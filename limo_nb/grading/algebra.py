"""Values of formulas at chosen points, exact where they are rational, and what they decide.

Two formulas are equal if they have equal values wherever both are defined. Capital letters
of a product that may not commute are matrices there, decorated letters vectors. Chapter 8.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import reduce
from itertools import permutations
from typing import Any

import mpmath
from mpmath import mp

from limo_nb.grading.latex import Node, operations, renamed, symbols

Value = Any  # Fraction, mpf, mpc or Grid

DIGITS = 40  # of working precision
CLOSE = 20  # digits that must agree
BITS = 40_000  # of an exact power
SIZE = 10**9  # the greatest exponent of e
TERMS = 3000  # of a sum or product
EXACT_FACTORIAL = 2000
# Values of the unknowns, in turn: below 1, above 1; and of both signs.
POSITIVE = (("0.731058", "0.417022", "0.873429", "0.559193"),
            ("0.112358", "0.174532", "0.239871", "0.081907"),
            ("1.618034", "2.236068", "1.259921", "3.307219"),
            ("2.718281", "0.302332", "4.114325", "1.443635"))  # fmt: skip
SIGNED = (("-0.577216", "1.414213", "-1.202057", "2.665144"),
          ("1.324718", "-2.584981", "0.764224", "-0.915966"))  # fmt: skip
WHOLE = ((5, 3, 7, 4), (12, 5, 9, 7), (8, 6, 11, 3), (1, 2, 4, 6), (7, 9, 2, 5), (10, 4, 3, 8))
STEPS = {r"\floor", r"\ceil", r"\sum", r"\prod", "binomial", "factorial"}
ROOTS = {"root", r"\ln", r"\log"}
ENDLESS = "infinity"


class Undefined(ArithmeticError):
    """No finite value, as of 1/0."""


class TooLarge(ArithmeticError):
    """A value that would take too long to compute."""


@dataclass(frozen=True)
class Grid:
    """A matrix; a vector has one column."""

    rows: tuple[tuple[Value, ...], ...]

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of rows and of columns."""
        return len(self.rows), len(self.rows[0])

    @property
    def transposed(self) -> Grid:
        """Rows as columns."""
        return Grid(tuple(zip(*self.rows, strict=True)))

    @property
    def is_vector(self) -> bool:
        """Whether there is one row or one column."""
        return 1 in self.shape

    def flat(self) -> list[Value]:
        """All values, row by row."""
        return [value for row in self.rows for value in row]

    def mapped(self, function: Callable[[Value], Value]) -> Grid:
        """`function` of every value."""
        return Grid(tuple(tuple(function(value) for value in row) for row in self.rows))


# ---------------------------------------------------------------- arithmetic
def _both(one: Value, other: Value) -> bool:
    return isinstance(one, Fraction) and isinstance(other, Fraction)


def _real(value: Value) -> Value:
    """An exact value as one that mpmath takes."""
    return mp.mpf(value.numerator) / value.denominator if isinstance(value, Fraction) else value


def add(one: Value, other: Value) -> Value:
    """The sum; raises Undefined for a matrix and a number."""
    if isinstance(one, Grid) or isinstance(other, Grid):
        if not (isinstance(one, Grid) and isinstance(other, Grid)):
            raise Undefined("a matrix and a number")
        if one.shape != other.shape:
            one, other = _padded(one, other)
        rows = zip(one.rows, other.rows, strict=True)
        return Grid(tuple(tuple(map(add, *pair)) for pair in rows))
    return one + other if _both(one, other) else _real(one) + _real(other)


def _padded(one: Grid, other: Grid) -> tuple[Grid, Grid]:
    """Two columns in as many dimensions: i + 2j is (1, 2) and (1, 2, 0)."""
    if one.shape[1] != 1 or other.shape[1] != 1:
        raise Undefined("matrices of unequal shape")
    size = max(one.shape[0], other.shape[0])
    zero = ((Fraction(0),),)
    return tuple(Grid(g.rows + zero * (size - g.shape[0])) for g in (one, other))  # type: ignore[return-value] # two of two


def multiply(one: Value, other: Value) -> Value:
    """The product of numbers and matrices in this order."""
    if isinstance(one, Grid) and isinstance(other, Grid):
        if one.shape[1] != other.shape[0]:
            if one.is_vector and one.shape == other.shape:
                return inner(one, other)
            raise Undefined("matrices that do not fit")
        columns = other.transposed.rows
        return Grid(
            tuple(
                tuple(reduce(add, map(multiply, row, column)) for column in columns)
                for row in one.rows
            )
        )
    if isinstance(one, Grid):
        return one.mapped(lambda value: multiply(value, other))
    if isinstance(other, Grid):
        return other.mapped(lambda value: multiply(one, value))
    return one * other if _both(one, other) else _real(one) * _real(other)


def inner(one: Grid, other: Grid) -> Value:
    """The scalar product of two vectors."""
    return reduce(add, map(multiply, one.flat(), other.flat()))


def crossed(one: Value, other: Value) -> Value:
    """The product that a cross writes: of two vectors the vector product."""
    if not (isinstance(one, Grid) and isinstance(other, Grid)):
        return multiply(one, other)
    if one.shape != (3, 1) or other.shape != (3, 1):
        return multiply(one, other)
    a, b = one.flat(), other.flat()
    found = []
    for n in range(3):
        i, j = (n + 1) % 3, (n + 2) % 3
        found.append((add(multiply(a[i], b[j]), negative(multiply(a[j], b[i]))),))
    return Grid(tuple(found))


def negative(value: Value) -> Value:
    """The value with the other sign."""
    return value.mapped(negative) if isinstance(value, Grid) else -value


def is_zero(value: Value) -> bool:
    """Whether a number is 0 to working precision."""
    if isinstance(value, Fraction):
        return value == 0
    return abs(value) < mp.mpf(10) ** (-mp.dps * 3 // 4)


def inverse(value: Value) -> Value:
    """1 divided by it; raises Undefined for 0."""
    if isinstance(value, Grid):
        if value.shape[0] != value.shape[1]:
            raise Undefined("no square matrix")
        try:
            found = mpmath.matrix([[_real(x) for x in row] for row in value.rows]) ** -1
        except ZeroDivisionError:
            raise Undefined("a matrix without inverse") from None
        size = range(value.shape[0])
        return Grid(tuple(tuple(found[i, j] for j in size) for i in size))
    if is_zero(value):
        raise Undefined("1/0")
    return 1 / value


def determinant(value: Value) -> Value:
    """The determinant; of a vector its length."""
    if not isinstance(value, Grid):
        return value
    if value.is_vector and value.shape != (1, 1):
        return mp.sqrt(_real(inner(value, value)))
    return mpmath.det(mpmath.matrix([[_real(x) for x in row] for row in value.rows]))


def power(base: Value, exponent: Value, principal: bool = False) -> Value:
    """`base` to the power of `exponent`, exact where that is feasible.

    Odd roots of negative numbers are real, unless the formula is complex (`principal`).
    Raises Undefined for 0 to a negative power, TooLarge beyond SIZE.
    """
    if isinstance(exponent, Grid):
        raise Undefined("a matrix as exponent")
    if isinstance(base, Grid):
        return _matrix_power(base, exponent)
    if is_zero(base):
        if is_zero(exponent):
            return Fraction(1)
        if _real(exponent).real > 0:
            return Fraction(0)
        raise Undefined("0 to a negative power")
    if isinstance(exponent, Fraction):
        exact = _exact_power(base, exponent, principal)
        if exact is not None:
            return exact
    base, exponent = _real(base), _real(exponent)
    if abs(exponent) > SIZE or abs(exponent * mp.log(abs(base))) > SIZE:
        raise TooLarge("a power")
    return mp.power(base, exponent)


def _exact_power(base: Value, exponent: Fraction, principal: bool) -> Value | None:
    if exponent.denominator == 1:
        if isinstance(base, Fraction):
            bits = max(base.numerator.bit_length(), base.denominator.bit_length())
            if abs(exponent) * bits <= BITS:
                return base**exponent.numerator
        return None
    degree = exponent.denominator
    if isinstance(base, Fraction) and base > 0 and abs(exponent.numerator) <= 64:
        roots = [_integer_root(n, degree) for n in (base.numerator, base.denominator)]
        if None not in roots:
            return Fraction(*roots) ** exponent.numerator  # type: ignore[arg-type] # not None
    real = isinstance(base, Fraction) or isinstance(base, mp.mpf)
    if real and base < 0 and degree % 2 and degree < 1000 and not principal:
        found = power(-base, exponent)
        return -found if exponent.numerator % 2 else found
    return None


def _integer_root(value: int, degree: int) -> int | None:
    """The root of an integer where it is one."""
    if degree > 64 or value.bit_length() > 2000:
        return None
    with mp.workdps(value.bit_length() // 3 + 20):
        near = int(mp.nint(mp.root(mp.mpf(value), degree)))
    return near if near**degree == value else None


def _matrix_power(base: Grid, exponent: Value) -> Grid:
    if not isinstance(exponent, Fraction) or exponent.denominator != 1 or abs(exponent) > 50:
        raise Undefined("the power of a matrix")
    if base.is_vector and exponent == 2:
        return inner(base, base)
    if exponent < 0:
        base, exponent = inverse(base), -exponent
    size = range(base.shape[0])
    one = Grid(tuple(tuple(Fraction(int(i == j)) for j in size) for i in size))
    return reduce(multiply, [base] * int(exponent), one)


def factorial(value: Value) -> Value:
    """n!, by the gamma function between the integers."""
    if isinstance(value, Fraction) and value.denominator == 1:
        if value < 0:
            raise Undefined("the factorial of a negative number")
        if value <= EXACT_FACTORIAL:
            return Fraction(math.factorial(int(value)))
    value = _real(value)
    if abs(value) > SIZE:
        raise TooLarge("a factorial")
    return mp.gamma(value + 1)


def binomial(above: Value, below: Value) -> Value:
    """The number of choices; exact for integers."""
    if _both(above, below) and above.denominator == below.denominator == 1:
        if 0 <= below <= above <= EXACT_FACTORIAL:
            return Fraction(math.comb(int(above), int(below)))
    if abs(_real(above)) > SIZE:
        raise TooLarge("a binomial")
    return mp.binomial(_real(above), _real(below))


# ---------------------------------------------------------------- functions
def _logarithm(value: Value, base: Value | None = None) -> Value:
    if is_zero(value):
        raise Undefined("the logarithm of 0")
    found = mp.log(_real(value))
    if base is None:
        return found
    below = _logarithm(base)
    if is_zero(below):
        raise Undefined("a logarithm to the base 1")
    exact = mp.nint(found / below) if not mp.im(found / below) else None
    if exact is not None and abs(exact) < 1000 and _both(value, base):
        if base ** int(exact) == value:
            return Fraction(int(exact))
    return found / below


def _stepped(step: Callable[[Any], Any]) -> Callable[[Value], Value]:
    """Floor or ceil; what is an integer but for rounding is taken for one."""

    def function(value: Value) -> Value:
        if isinstance(value, Fraction):
            return Fraction(step(value))
        if mp.im(value):
            raise Undefined("a step of a complex number")
        near = mp.nint(value)
        if abs(near - value) < mp.mpf(10) ** -CLOSE:
            return Fraction(int(near))
        if abs(value) > SIZE:
            raise TooLarge("a step")
        return Fraction(int(mp.floor(value) if step is math.floor else mp.ceil(value)))

    return function


def _magnitude(value: Value) -> Value:
    return determinant(value) if isinstance(value, Grid) else abs(value)


def _whole(values: tuple[Value, ...], join: Callable[..., int]) -> Value:
    if not all(isinstance(v, Fraction) and v.denominator == 1 for v in values):
        raise Undefined("no integers")
    return Fraction(join(*map(int, values)))


def _ordered(values: tuple[Value, ...], choose: Callable[..., Any]) -> Value:
    if any(isinstance(v, Grid) or mp.im(_real(v)) for v in values):
        raise Undefined("no order")
    return choose(values)


def _through(function: Callable[[Any], Any]) -> Callable[[Value], Value]:
    """A function of mpmath; raises Undefined at its poles."""

    def applied(value: Value) -> Value:
        if isinstance(value, Grid):
            raise Undefined("a function of a matrix")
        try:
            return function(_real(value))
        except (ValueError, ZeroDivisionError, OverflowError):
            raise Undefined("a pole") from None

    return applied


def _double_factorial(value: Value) -> Value:
    if not isinstance(value, Fraction) or value.denominator != 1 or not 0 <= value < 2000:
        return mp.fac2(_real(value))
    return Fraction(math.prod(range(int(value), 0, -2)))


def _exponential(value: Value) -> Value:
    if isinstance(value, Grid) or abs(_real(value)) > SIZE:
        raise TooLarge("an exponential")
    return mp.exp(_real(value))


def _tangent(value: Value) -> Value:
    cosine = mp.cos(_real(value))
    if is_zero(cosine):
        raise Undefined("a pole of the tangent")
    return mp.sin(_real(value)) / cosine


CALLS: dict[str, Callable[..., Value]] = {
    r"\sin": _through(mp.sin), r"\cos": _through(mp.cos), r"\tan": _tangent,
    r"\cot": lambda x: inverse(_tangent(x)), r"\sec": lambda x: inverse(mp.cos(_real(x))),
    r"\csc": lambda x: inverse(mp.sin(_real(x))), r"\arcsin": _through(mp.asin),
    r"\arccos": _through(mp.acos), r"\arctan": _through(mp.atan), r"\arccot": _through(mp.acot),
    r"\sinh": _through(mp.sinh), r"\cosh": _through(mp.cosh), r"\tanh": _through(mp.tanh),
    r"\coth": _through(mp.coth), r"\arsinh": _through(mp.asinh),
    r"\arcosh": _through(mp.acosh), r"\artanh": _through(mp.atanh), r"\ln": _logarithm,
    r"\log": _logarithm, r"\exp": _exponential, r"\abs": _magnitude,
    r"\cis": lambda x: mp.expj(_real(x)), r"\sgn": _through(mp.sign), r"\arg": _through(mp.arg),
    r"\Re": _through(mp.re), r"\Im": _through(mp.im), r"\floor": _stepped(math.floor),
    r"\ceil": _stepped(math.ceil), r"\Gamma": lambda x: factorial(add(x, Fraction(-1))),
    r"\det": determinant, r"\doublefactorial": _double_factorial,
    r"\tr": lambda g: reduce(add, (row[n] for n, row in enumerate(g.rows))),
    r"\max": lambda *v: _ordered(v, lambda values: max(values, key=_real)),
    r"\min": lambda *v: _ordered(v, lambda values: min(values, key=_real)),
    r"\gcd": lambda *v: _whole(v, math.gcd), r"\lcm": lambda *v: _whole(v, math.lcm),
}  # fmt: skip


# ---------------------------------------------------------------- evaluation
@dataclass
class Evaluation:
    """Values at one point: of the unknowns, of a degree, and whether roots are complex."""

    values: dict[str, Value]
    principal: bool = False
    degree: Value = None

    def of(self, node: Node) -> Value:
        """The value of a tree; raises Undefined or TooLarge."""
        rule = RULES.get(node.op)
        if rule:
            return rule(self, *node.args)
        return getattr(self, node.op)(*node.args)

    def symbol(self, name: str) -> Value:
        """The value of an unknown."""
        return self.values[name]

    vector = matrix = symbol

    def constant(self, name: str) -> Value:
        """π, e or i; raises Undefined for infinity."""
        if name == ENDLESS:
            raise Undefined(ENDLESS)
        return {"pi": +mp.pi, "e": +mp.e, "i": mp.mpc(0, 1)}[name]

    def quotient(self, above: Node, below: Node) -> Value:
        """One value divided by the other."""
        divisor = self.of(below)
        return multiply(self.of(above), inverse(divisor))

    def root(self, inside: Node, degree: Node) -> Value:
        """A root; of negative numbers with an odd degree it is real."""
        return power(self.of(inside), inverse(self.of(degree)), self.principal)

    def power(self, base: Node, exponent: Node) -> Value:
        """A power; of e an exponential."""
        if base == Node("constant", ("e",)):
            raised = self.of(exponent)
            return _exponential(raised)
        return power(self.of(base), self.of(exponent), self.principal)

    def degrees(self, inside: Node) -> Value:
        """So many degrees as a number."""
        degree = mp.pi / 180 if self.degree is None else self.degree
        return multiply(self.of(inside), degree)

    def call(self, name: str, *arguments: Node) -> Value:
        """A function by its name."""
        if name not in CALLS:
            raise Undefined(name)
        return CALLS[name](*map(self.of, arguments))

    def applied(self, name: str, *arguments: Node) -> Value:
        """An unknown function: any one that tells its name and arguments apart."""
        place = mp.mpf(zlib.crc32(name.encode()) % 9973) / 997
        for n, argument in enumerate(arguments):
            place += _real(self.of(argument)) * mp.mpf(n * n + 7) / 11
        return 2 + mp.sin(place)

    def starred(self, inside: Node, mark: Node) -> Value:
        """A*, x^+ and the like: an unknown function too."""
        return self.applied(f"starred {mark.args[0]}", Node("call", (r"\abs", inside)))

    def transposed(self, inside: Node) -> Value:
        """A transposed matrix; raises Undefined for a number."""
        found = self.of(inside)
        if not isinstance(found, Grid):
            raise Undefined("a transposed number")
        return found.transposed

    def grid(self, *rows: tuple[Node, ...]) -> Value:
        """A matrix of cells."""
        return Grid(tuple(tuple(map(self.of, row)) for row in rows))

    def tuple(self, *parts: Node) -> Value:
        """A column of components."""
        return Grid(tuple((self.of(part),) for part in parts))

    def unit(self, number: int) -> Value:
        """One of the unit vectors i, j, k."""
        return Grid(tuple((Fraction(int(n == number)),) for n in range(3)))

    def series(self, kind: str, bound: str, low: Node, high: Node, body: Node) -> Value:
        """A finite sum or product."""
        first, last = self.of(low), self.of(high)
        if not (_both(first, last) and first.denominator == last.denominator == 1):
            raise Undefined("limits that are no integers")
        if last - first > TERMS:
            raise TooLarge("a series")
        join = add if kind == r"\sum" else multiply
        found = Fraction(int(kind != r"\sum"))
        for n in range(int(first), int(last) + 1):
            values = {**self.values, bound: Fraction(n)}
            found = join(found, Evaluation(values, self.principal, self.degree).of(body))
        return found

    def integral(self, by: str, low: Node, high: Node, body: Node) -> Value:
        """A definite integral, by quadrature; raises TooLarge where that is not precise."""

        def at(place: Value) -> Value:
            return _real(Evaluation({**self.values, by: place}, self.principal).of(body))

        limits = [self.limit(low), self.limit(high)]
        with mp.workdps(DIGITS // 2 + 5):
            found, error = mp.quad(at, limits, error=True)
        if error > mp.mpf(10) ** -CLOSE:
            raise TooLarge("an integral that is not precise")
        return found

    def limit(self, node: Node) -> Value:
        """A limit of an integral, which may be infinite."""
        if node == Node("constant", (ENDLESS,)):
            return mp.inf
        if node == Node("minus", (Node("constant", (ENDLESS,)),)):
            return -mp.inf
        return _real(self.of(node))


RULES: dict[str, Callable[..., Value]] = {
    "number": lambda own, value: value,
    "sum": lambda own, *parts: reduce(add, map(own.of, parts)),
    "product": lambda own, *parts: reduce(multiply, map(own.of, parts)),
    "minus": lambda own, part: negative(own.of(part)),
    "dot": lambda own, a, b: _dotted(own.of(a), own.of(b)),
    "cross": lambda own, a, b: crossed(own.of(a), own.of(b)),
    "bracket": lambda own, part: own.of(part),
    "factorial": lambda own, part: factorial(own.of(part)),
    "binomial": lambda own, a, b: binomial(own.of(a), own.of(b)),
}


def _dotted(one: Value, other: Value) -> Value:
    vectors = isinstance(one, Grid) and isinstance(other, Grid)
    if vectors and one.shape == other.shape and one.is_vector:
        return inner(one, other)
    return multiply(one, other)


def value_of(node: Node, evaluation: Evaluation) -> Value | None:
    """The value, None where there is none; raises TooLarge."""
    try:
        found = evaluation.of(node)
    except (Undefined, ZeroDivisionError, ValueError, OverflowError, TypeError, KeyError):
        return None
    parts = found.flat() if isinstance(found, Grid) else [found]
    return found if all(isinstance(p, Fraction) or mp.isfinite(p) for p in parts) else None


# ---------------------------------------------------------------- comparison
@dataclass(frozen=True)
class Pair:
    """Two trees that are compared, and what is known of their unknowns."""

    one: Node
    other: Node
    tolerance: float = 0.0  # relative, of the second

    @property
    def names(self) -> list[str]:
        """The unknowns of both, sorted."""
        return sorted(symbols(self.one) | symbols(self.other))

    @property
    def operations(self) -> frozenset[str]:
        """All operations and functions of both."""
        return operations(self.one) | operations(self.other)

    @property
    def principal(self) -> bool:
        """Whether i is in either, so that roots are complex."""
        return "i" in self.operations

    @property
    def degree(self) -> Value:
        """What ° is worth: nothing where one side leaves it out and none has functions."""
        marked = ["degrees" in operations(node) for node in (self.one, self.other)]
        trigonometric = {r"\sin", r"\cos", r"\tan", r"\cot", r"\sec", r"\csc", r"\cis", "pi",
                         r"\arcsin", r"\arccos", r"\arctan"}  # fmt: skip
        if all(marked) or self.operations & trigonometric:
            return None
        return Fraction(1)

    def at(self, values: dict[str, Value]) -> tuple[Value | None, Value | None]:
        """Both values at a point."""
        own = Evaluation(values, self.principal, self.degree)
        return value_of(self.one, own), value_of(self.other, own)


def close(one: Value, other: Value, tolerance: float = 0.0) -> bool:
    """Whether two values agree, exactly where both are exact."""
    if isinstance(one, Grid) or isinstance(other, Grid):
        if not (isinstance(one, Grid) and isinstance(other, Grid)):
            return False
        if one.shape != other.shape:
            if one.shape[1] != 1 or other.shape[1] != 1:
                return False
            one, other = _padded(one, other)
        return all(map(close, one.flat(), other.flat()))
    if _both(one, other) and not tolerance:
        return one == other
    one, other = _real(one), _real(other)
    distance, scale = abs(one - other), max(abs(one), abs(other))
    if scale < mp.mpf(10) ** -(DIGITS - 5):
        return True
    if distance <= scale * mp.mpf(10) ** -CLOSE:
        return True
    return bool(tolerance and distance <= tolerance * abs(one))


def sample_points(
    names: list[str], kinds: dict[str, str], table: tuple
) -> Iterator[dict[str, Value]]:
    """A value for every unknown, at each row of `table`."""
    for row in table:
        values: dict[str, Value] = {}
        for n, name in enumerate(names):
            given = row[n % len(row)]
            value: Value = Fraction(given) if isinstance(given, int) else mp.mpf(given)
            value = (
                value + n // len(row) * Fraction(2)
                if isinstance(given, int)
                else (
                    value ** (1 + n // len(row)) if value > 0 else value * (1 + n // len(row))
                )
            )
            values[name] = _of_kind(kinds.get(name, "symbol"), value, n)
        yield values


def _of_kind(kind: str, value: Value, n: int) -> Value:
    """A number, or a vector or matrix made from it."""
    if kind == "symbol":
        return value
    size = 1 if kind == "vector" else 3
    seed = _real(value)
    return Grid(
        tuple(
            tuple(mp.sin(seed * (7 * i + 3 * j + 2) + n) + int(i == j) * 2 for j in range(size))
            for i in range(3)
        )
    )


def kinds_of(*nodes: Node) -> dict[str, str]:
    """Which unknowns are vectors and which matrices."""
    found: dict[str, str] = {}
    for node in nodes:
        _collect(node, found)
    return found


def _collect(node: Node, found: dict[str, str]) -> None:
    if node.op in ("vector", "matrix"):
        found[node.args[0]] = node.op
    parts = [c for row in node.args for c in row] if node.op == "grid" else node.args
    for part in parts:
        if isinstance(part, Node):
            _collect(part, found)


def equal(pair: Pair) -> bool | None:
    """Whether two formulas are equal, None where their values do not tell.

    What roots and logarithms make of negative unknowns does not count against them, where
    no absolute value says that somebody thought of it. Raises TooLarge.
    """
    with mp.workdps(DIGITS):
        if not pair.names:
            return _constants(pair)
        kinds = kinds_of(pair.one, pair.other)
        if pair.operations & STEPS:
            return _agree(pair, sample_points(pair.names, kinds, WHOLE))
        plain = _agree(pair, sample_points(pair.names, kinds, POSITIVE))
        if plain:
            signed = _agree(pair, sample_points(pair.names, kinds, SIGNED))
            positive = bool(pair.operations & ROOTS or _has_broken_power(pair))
            return signed is not False or (positive and r"\abs" not in pair.operations)
        whole = _whole_unknowns(pair)
        if not plain and whole:
            return _agree(pair, _some_whole(pair, kinds, whole))
        return plain


def _has_broken_power(pair: Pair) -> bool:
    """Whether an exponent is no integer."""

    def broken(node: Node) -> bool:
        if node.op == "power":
            raised = node.args[1]
            value = value_of(raised, Evaluation({})) if not symbols(raised) else None
            if value is None or not isinstance(value, Fraction) or value.denominator != 1:
                return True
        parts = [c for row in node.args for c in row] if node.op == "grid" else node.args
        return any(broken(part) for part in parts if isinstance(part, Node))

    return broken(pair.one) or broken(pair.other)


def _constants(pair: Pair) -> bool | None:
    one, other = pair.at({})
    if one is None and other is None:
        return None
    if one is None or other is None:
        return False
    if isinstance(one, Grid) or isinstance(other, Grid) or _both(one, other):
        return close(one, other, pair.tolerance)
    if not close(one, other, pair.tolerance):
        return False
    size = abs(_real(one))
    if size < mp.mpf(10) ** (CLOSE - 5) or pair.tolerance:
        return True
    digits = int(mp.log10(size))
    if digits > 5000:
        return None
    with mp.workdps(digits + DIGITS):  # of greater numbers, their end counts too
        one, other = pair.at({})
        return bool(abs(_real(one) - _real(other)) < mp.mpf(10) ** (-CLOSE // 2))


def _agree(pair: Pair, places: Iterator[dict[str, Value]]) -> bool | None:
    """Whether the values agree at all points where both exist, None where none exist."""
    known = False
    for values in places:
        one, other = pair.at(values)
        if one is None or other is None:
            continue
        if not pair.principal and not all(map(_is_real, (one, other))):
            if not close(one, other) and not _is_real(one) and not _is_real(other):
                continue  # outside the domain
        known = True
        if not close(one, other, pair.tolerance):
            return False
    return True if known else None


def _is_real(value: Value) -> bool:
    return isinstance(value, Grid | Fraction) or not mp.im(value)


def _whole_unknowns(pair: Pair) -> frozenset[str]:
    r"""Unknowns that are integers by the way they are used: (-1)^n, \sin(\pi n), i^{4n}."""
    found: set[str] = set()

    def look(node: Node) -> None:
        if node.op == "power" and not symbols(node.args[0]):
            base = value_of(node.args[0], Evaluation({}))
            if base is not None and not isinstance(base, Grid):
                if not _is_real(base) or _real(base) < 0:
                    found.update(symbols(node.args[1]))
        if node.op == "call" and node.args[0] in (r"\sin", r"\cos", r"\tan", r"\cot", r"\exp"):
            if "pi" in operations(node):
                found.update(symbols(node) & {"n", "k", "m", "l", "j", "N", "K", "M"})
        parts = [c for row in node.args for c in row] if node.op == "grid" else node.args
        for part in parts:
            if isinstance(part, Node):
                look(part)

    look(pair.one)
    look(pair.other)
    return frozenset(found)


def _some_whole(
    pair: Pair, kinds: dict[str, str], whole: frozenset[str]
) -> Iterator[dict[str, Value]]:
    """Points where the unknowns `whole` are integers, and the others are not."""
    real = sample_points(pair.names, kinds, POSITIVE * 2)
    for values, integers in zip(real, sample_points(pair.names, kinds, WHOLE), strict=False):
        yield {name: integers[name] if name in whole else values[name] for name in pair.names}


# ---------------------------------------------------------------- names of constants
VARIABLES = {"x", "t", "y", "s", "u", "z", "r", "\\theta"}  # what is integrated over
CONSTANT = ("C", "c", "K", "k", "A", "B", "D", "E")


def is_constant(name: str) -> bool:
    """Whether a letter may be a constant of integration: C, C_1, A."""
    return name.partition("_")[0] in CONSTANT and (
        "_" not in name or name.partition("_")[2].isdigit()
    )


def is_affine(node: Node, name: str) -> bool:
    """Whether a constant is added or a factor of a summand, and not in an exponent."""
    with mp.workdps(DIGITS):
        (place,) = list(sample_points(sorted(symbols(node)), {}, POSITIVE[:1]))
        at = [value_of(node, Evaluation({**place, name: Fraction(n)})) for n in range(3)]
    if any(value is None or isinstance(value, Grid) for value in at):
        return False
    return close(_real(at[1]) - _real(at[0]), _real(at[2]) - _real(at[1]))


def renamings(one: Node, other: Node, free: frozenset[str]) -> Iterator[dict[str, str]]:
    """How constants of `other` may be renamed to those of `one`; `free` may have any name."""
    mine, theirs = symbols(one), symbols(other)
    if not free and not mine & VARIABLES:
        return  # c in a law of physics is no constant of integration
    missing, extra = sorted(mine - theirs), sorted(theirs - mine)
    indexed = sorted(n for n in mine & theirs if n[0] in "Cc" and "_" in n and is_constant(n))
    if missing and len(missing) == len(extra) <= 4:
        if all(
            n in free or (is_constant(n) and n[0] == "C" and is_affine(one, n)) for n in missing
        ):
            if all(is_constant(name) for name in extra):
                for order in permutations(missing):
                    yield dict(zip(extra, order, strict=True))
    elif not missing and not extra and 2 <= len(indexed) <= 4:
        for order in permutations(indexed):
            if list(order) != indexed:
                yield dict(zip(indexed, order, strict=True))


# ---------------------------------------------------------------- equations
def same_equation(one: tuple[Node, Node], other: tuple[Node, Node]) -> bool | None:
    """Whether two equations have the same solutions, None where that cannot be told.

    They have if the differences of their sides are proportional. Where one is linear in
    an unknown, the other must be solved by what solves it. Raises TooLarge.
    """
    first, second = (Node("sum", (a, Node("minus", (b,)))) for a, b in (one, other))
    pair = Pair(first, second)
    if not pair.names:
        return None
    with mp.workdps(DIGITS):
        kinds = kinds_of(first, second)
        table = POSITIVE + SIGNED
        found = [pair.at(values) for values in sample_points(pair.names, kinds, table)]
        known = [(a, b) for a, b in found if a is not None and b is not None]
        if any(isinstance(v, Grid) for both in known for v in both):
            return True if all(close(a, b) or close(a, negative(b)) for a, b in known) else None
        if len(known) >= 2 and not any(is_zero(v) for both in known for v in both):
            ratios = [_real(a) / _real(b) for a, b in known]
            if all(close(ratio / ratios[0], mp.mpf(1)) for ratio in ratios):
                return True
            gaps = [_real(a) - _real(b) for a, b in known]
            if all(close(gap, gaps[0]) for gap in gaps):
                return False
        return _solved_alike(pair, kinds)


def _solved_alike(pair: Pair, kinds: dict[str, str]) -> bool | None:
    """Whether two equations that are linear in one unknown give it the same values.

    None where only one of them is linear: x^2 = 4 holds where x = 2 does, and elsewhere.
    """
    alike = None
    for name in pair.names:
        if name in kinds:
            continue
        one, other = _roots(pair.one, name, pair), _roots(pair.other, name, pair)
        if one and other:
            alike = all(
                abs(a - b)
                <= max(abs(a), abs(b), mp.mpf(10) ** -15) * mp.mpf(10) ** (-CLOSE + 5)
                for a, b in zip(one, other, strict=True)
            )
            if not alike:
                return False
        elif one and _at_root(pair.other, name, pair, one) is False:
            return False
    return alike


def _roots(node: Node, unknown: str, pair: Pair) -> list[Value] | None:
    """Where a tree vanishes at each of POSITIVE, None unless it is linear in `unknown`."""
    found = []
    for values in sample_points(pair.names, {}, POSITIVE + SIGNED[:1]):
        at = []
        for n in range(4):
            own = Evaluation({**values, unknown: Fraction(n)}, pair.principal, pair.degree)
            at.append(value_of(node, own))
        if any(value is None or isinstance(value, Grid) for value in at):
            return None
        steps = [_real(b) - _real(a) for a, b in zip(at, at[1:], strict=False)]
        if is_zero(steps[0]) or not all(close(step, steps[0]) for step in steps):
            return None
        found.append(-_real(at[0]) / steps[0])
    return found


def _at_root(node: Node, unknown: str, pair: Pair, roots: list[Value]) -> bool | None:
    """Whether a tree vanishes where `unknown` is the first of `roots`."""
    values = next(sample_points(pair.names, {}, POSITIVE))
    own = Evaluation({**values, unknown: roots[0]}, pair.principal, pair.degree)
    left = value_of(node, own)
    return None if left is None else bool(abs(_real(left)) < mp.mpf(10) ** (-CLOSE + 5))


__all__ = [
    "DIGITS", "Evaluation", "Grid", "Pair", "TooLarge", "Undefined", "equal", "is_constant",
    "renamed", "renamings", "same_equation", "value_of",
]  # fmt: skip
