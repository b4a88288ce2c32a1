r"""A formula in LaTeX as a tree, read by recursive descent; nothing is evaluated.

Unlike math-verify's grammar it keeps what tells answers apart: case, subscripts with their
signs, `I`, `d` and `\gamma` as letters, degrees, and the order of factors. What it does not
read raises `NotUnderstood`; `symbolic` then asks math-verify. Chapter 8.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from limo_nb.grading.rewriting import Rewrite, rewritten

DEPTH = 60  # brackets within brackets
LONGEST = 2000  # characters


class NotUnderstood(ValueError):
    """A text that is no formula, or one that this reader does not know."""


@dataclass(frozen=True, slots=True)
class Node:
    """An operation and its operands: nodes, or the value or name of a leaf."""

    op: str
    args: tuple = ()


TOKEN = re.compile(
    r"\s*(?P<sign>\d+(?:\.\d+)?|\.\d+|\\[A-Za-z]+|\\[^A-Za-z\s]|[A-Za-z]"
    r"|[-+*/^_(){}\[\]|!'=<>,;:%&])"
)
NUMBER = re.compile(r"\d|\.\d")
STYLES = frozenset(
    r"\text \mathrm \textrm \textbf \textit \textnormal \mbox \operatorname \mathit \rm"
    r" \mathsf \textsf \mathtt \texttt \mathcal \displaystyle".split()
)
BOLD = frozenset(r"\vec \mathbf \boldsymbol \bm \overrightarrow \hat \textbf".split())
ACCENTS = frozenset(r"\bar \overline \tilde \widetilde \widehat \underline".split())
GREEK = frozenset(
    r"\alpha \beta \gamma \delta \epsilon \varepsilon \zeta \eta \theta \vartheta \iota"
    r" \kappa \lambda \mu \nu \xi \rho \varrho \sigma \tau \upsilon \phi \varphi \chi \psi"
    r" \omega \Gamma \Delta \Theta \Lambda \Xi \Pi \Sigma \Upsilon \Phi \Psi \Omega \hbar"
    r" \ell \odot \mho".split()
)
SAME_LETTER = {r"\varepsilon": r"\epsilon", r"\vartheta": r"\theta", r"\varphi": r"\phi"}
FUNCTIONS = frozenset(
    r"\sin \cos \tan \cot \sec \csc \arcsin \arccos \arctan \arccot \sinh \cosh \tanh \coth"
    r" \ln \log \lg \exp \cis \arsinh \arcosh \artanh \sgn \arg \Re \Im \det \tr".split()
)
INVERSE = {name: f"\\arc{name[1:]}" for name in (r"\sin", r"\cos", r"\tan", r"\cot")}
TIMES = {r"\cdot": "dot", r"\times": "cross", "*": "dot", r"\ast": "dot", r"\bullet": "dot"}
ENDING = frozenset(r"\} \rfloor \rceil \choose \rangle \\ \end \| \rvert".split())
GATHERING = {r"\max", r"\min", r"\gcd", r"\lcm"}
MATRIX = re.compile(r"(?:[pbvBV]|small)?matrix|array")
WHOLE = (  # what else the parser would have to know, told as what it knows
    Rewrite(
        "derivatives", r"\\frac\s*\{\s*(?P<d>d|\\partial)\s?(?:\^\s?\{?(?P<n>\d)\}?)?\s?"
        r"(?P<y>[A-Za-z\\{}_0-9]{1,16}?)\}\s*\{\s*(?:d|\\partial)\s?(?P<x>[A-Za-z])"
        r"\s?(?:\^\s?\{?(?P<m>\d)\}?)?\}",
        lambda m: rf"\deriv{{{m['n'] or 1}}}{{{m['y']}}}{{{_by(m)}}}",
        r"\frac{d^{2}y}{dx^2}", r"\deriv{2}{y}{x}",
    ),
    Rewrite(
        "dots", r"\\(?P<d>d?)dot\s*(?:\{(?P<y>[^{}]*)\}|\s?(?P<z>[A-Za-z]|\\[a-z]+))",
        lambda m: rf"\deriv{{{2 if m['d'] else 1}}}{{{m['y'] or m['z']}}}{{0}}",
        r"\ddot{x}", r"\deriv{2}{x}{0}",
    ),
    Rewrite(
        "combinations in front", r"\{\}_\{?(\d+)\}?\s?C_\{?(\d+)\}?", r"\\binom{\1}{\2}",
        r"{}_{10}C_3", r"\binom{10}{3}",
    ),
    Rewrite(
        "combinations as a function", r"(?<![A-Za-z\\])C\((\d+),(\d+)\)", r"\\binom{\1}{\2}",
        "C(5,2)", r"\binom{5}{2}",
    ),
    Rewrite(
        "combinations with two indices", r"(?:(?<![A-Za-z\\])C|\\mathrm\{C\})_\{?(\d+)\}?"
        r"\^\{?(\d+)\}?", lambda m: _chosen(m, r"\binom{{{}}}{{{}}}"),
        "C_{10}^3", r"\binom{10}{3}",
    ),
    Rewrite(
        "arrangements with two indices", r"(?:(?<![A-Za-z\\])[AP]|\\mathrm\{[AP]\})_\{?(\d+)\}?"
        r"\^\{?(\d+)\}?", lambda m: _chosen(m, r"\binom{{{0}}}{{{1}}}{1}!"),
        "A_{10}^3", r"\binom{10}{3}3!",
    ),
    Rewrite("double factorial", r"!!", r"\\doublefactorial ", "n!!", r"n\doublefactorial "),
    Rewrite("thousands", r"(?<![\d.,])(\d{1,3})((?:,\d{3})+)(?![\d])",
            lambda m: m[1] + m[2].replace(",", ""), "1,000x", "1000x"),
)  # fmt: skip


def _by(match: re.Match) -> str:
    """The variable of a derivative, with the order below where it is not the one above."""
    order = match["m"] or "1"
    partial = "p" if match["d"] != "d" else ""
    return partial + match["x"] + (order if order != (match["n"] or "1") else "")


def _chosen(match: re.Match, form: str) -> str:
    """Of C_{10}^3 the binomial; C_1^2 is a constant squared."""
    fits = int(match[1]) >= max(2, int(match[2]))
    return form.format(match[1], match[2]) if fits else match[0]


FUNCTION_HEAD = re.compile(
    r"((?<![A-Za-z\\])[A-Za-z]|\\(?:theta|phi|psi|varphi|delta|omega|rho)\b)\}?'*"
    r"\((?:[a-z](?:,[a-z])*|\d)\)"
)
NEVER_FUNCTIONS = frozenset("einkmCAP")


def function_letters(*texts: str) -> frozenset[str]:
    """The letters that are applied to a letter or digit in any text: f(x), y(0)."""
    found = {letter for text in texts for letter in FUNCTION_HEAD.findall(text)}
    return frozenset(found - NEVER_FUNCTIONS)


def is_decorated(text: str) -> bool:
    """Whether any letter of `text` is written as a vector or a bold matrix."""
    return bool(re.search(r"\\(?:vec|mathbf|boldsymbol|bm|overrightarrow|hat)(?![a-z])", text))


MATRICES = re.compile(
    r"[A-Z)}]\^\s?\{?\s?(?:\\top|\\mathrm\s?\{?T\}?|\\mathsf\s?\{?T\}?|\\text\{T\}|T|\\ast|\*)(?![A-Za-z+-])"
    r"|([A-Z])([A-Z]).*\2\1|[A-Z]\^\{-1\}\s?[A-Z]\^\{-1\}"
    r"|(?<![A-Za-z\\])([A-Z])\^\{-1\}.*?\3|(?<![A-Za-z\\])([A-Z]).*?\4\^\{-1\}"
)


def has_matrices(text: str) -> bool:
    r"""Whether capital letters are matrices: P^{-1}AP, A^T."""
    return bool(MATRICES.search(text))


@lru_cache(4096)
def parse(
    text: str, functions: frozenset[str] = frozenset(), vectors: bool = False,
    matrices: bool = False,
) -> Node:  # fmt: skip
    """The tree of one formula without relation signs.

    `functions` are letters that are applied to brackets behind them, else they multiply.
    With `vectors`, decorated letters are vectors, else as if they were plain. With
    `matrices`, capital letters do not commute. Raises NotUnderstood.
    """
    if len(text) > LONGEST:
        raise NotUnderstood("too long")
    parser = _Parser(tokens(rewritten(text, WHOLE)), functions, vectors, matrices)
    try:
        return parser.whole()
    except RecursionError:
        raise NotUnderstood("too deeply nested") from None


def tokens(text: str) -> list[str]:
    """The tokens of LaTeX; raises NotUnderstood at a sign that formulas do not have."""
    found, place, text = [], 0, text.rstrip()
    while place < len(text):
        match = TOKEN.match(text, place)
        if not match:
            raise NotUnderstood(f"the sign {text[place]!r}")
        found.append(match["sign"])
        place = match.end()
    return found


def product(*factors: Node) -> Node:
    """A product in this order."""
    return factors[0] if len(factors) == 1 else Node("product", factors)


def number_node(value: int | Fraction) -> Node:
    """A number as a leaf."""
    return Node("number", (Fraction(value),))


class _Parser:
    """Recursive descent over the tokens of one formula."""

    def __init__(
        self, found: list[str], functions: frozenset[str], vectors: bool, matrices: bool
    ) -> None:
        self.tokens, self.place, self.depth = found, 0, 0
        self.functions, self.vectors, self.matrices = functions, vectors, matrices
        self.bound: list[str] = []  # letters that a sum or an integral binds
        self.bars, self.integrals = 0, 0  # open |, open integrals

    # ------------------------------------------------------------ tokens
    def peek(self, ahead: int = 0) -> str:
        place = self.place + ahead
        return self.tokens[place] if place < len(self.tokens) else ""

    def take(self) -> str:
        sign = self.peek()
        self.place += 1
        return sign

    def want(self, sign: str) -> None:
        if self.take() != sign:
            raise NotUnderstood(f"no {sign}")

    def takes(self, sign: str) -> bool:
        if self.peek() != sign:
            return False
        self.place += 1
        return True

    # ------------------------------------------------------------ sums and products
    def whole(self) -> Node:
        found = self.sum()
        if self.place != len(self.tokens):
            raise NotUnderstood(f"behind the formula: {self.peek()}")
        return found

    def sum(self) -> Node:
        self.depth += 1
        if self.depth > DEPTH:
            raise NotUnderstood("too deeply nested")
        terms, sign = [], 1
        while True:
            while self.peek() in ("+", "-"):
                sign *= -1 if self.take() == "-" else 1
            term = self.product()
            terms.append(term if sign > 0 else Node("minus", (term,)))
            if self.peek() not in ("+", "-"):
                break
            sign = 1
        if self.takes(r"\choose"):
            terms = [Node("binomial", (_sum(terms), self.sum()))]
        self.depth -= 1
        return _sum(terms)

    def product(self) -> Node:
        factors = [self.factor()]
        while True:
            sign = self.peek()
            if sign in TIMES:
                self.take()
                factors = [Node(TIMES[sign], (product(*factors), self.signed()))]
            elif sign in ("/", r"\div", ":"):
                self.take()
                factors = [Node("quotient", (product(*factors), self.signed()))]
            elif self.starts_factor(sign):
                factors.append(self.factor())
            else:
                return product(*factors)

    def signed(self) -> Node:
        if self.takes("-"):
            return Node("minus", (self.signed(),))
        return self.factor()

    def starts_factor(self, sign: str) -> bool:
        if not sign or sign in "+-*/^_)}]!'=<>,;:%&":
            return False
        if sign == "|":
            return not self.bars
        if sign == "d" and self.integrals and re.fullmatch("[A-Za-z]", self.peek(1)):
            return False
        return sign not in ENDING

    # ------------------------------------------------------------ powers and signs behind
    def factor(self) -> Node:
        base = self.atom()
        while True:
            sign = self.peek()
            if sign == "^":
                self.take()
                base = self.raised(base)
            elif sign == "!":
                self.take()
                base = Node("factorial", (base,))
            elif sign == r"\doublefactorial":
                self.take()
                base = Node("call", (r"\doublefactorial", base))
            elif sign == "%" or sign == r"\%":
                self.take()
                base = Node("quotient", (base, number_node(100)))
            elif sign == "'":
                base = self.primed(base)
            else:
                return base

    def raised(self, base: Node) -> Node:
        """`base` with what follows ^: a power, degrees, a transposed matrix."""
        start = self.place
        if self.peek() == "{":
            inner = "".join(self.group_tokens())
        else:
            inner = self.peek()
        if inner == r"\circ":
            self.place = max(self.place, start + 1)
            return Node("degrees", (base,))
        if base.op == "tuple" and inner in (r"\top", "T", r"\mathrm{T}"):
            self.place = max(self.place, start + 1)
            return base  # a column that is written as a row
        if inner in (r"\top", "T", r"\mathrm{T}", r"\mathsf{T}", r"\text{T}") and (
            self.matrices or base.op == "grid"
        ):
            self.place = max(self.place, start + 1)
            return Node("transposed", (base,))
        if inner in ("*", r"\ast", r"\star", "+", r"\dagger"):
            self.place = max(self.place, start + 1)
            return Node("starred", (base, Node("number", (Fraction(ord(inner[-1])),))))
        self.place = start
        return Node("power", (base, self.argument()))

    def primed(self, base: Node) -> Node:
        count = 0
        while self.takes("'"):
            count += 1
        if base.op != "symbol":
            raise NotUnderstood("a prime")
        return self.applied(f"D{count} {base.args[0]}/0", base.args[0])

    # ------------------------------------------------------------ arguments in braces
    def argument(self) -> Node:
        """One argument of a TeX command: a group, or the one sign that follows."""
        sign = self.peek()
        if sign == "{":
            return self.group("{", "}")
        if NUMBER.match(sign) and len(sign) > 1:  # \frac12: digit by digit
            self.tokens[self.place : self.place + 1] = list(sign)
            if "." in sign:
                raise NotUnderstood("a decimal without braces")
            return number_node(int(self.take()))
        if sign == "-":  # x^-1, against TeX's rules but often written
            self.take()
            return Node("minus", (self.atom(),))
        if sign == "(":
            return self.group("(", ")")
        return self.atom()

    def group(self, opening: str, end: str) -> Node:
        self.want(opening)
        bars, self.bars = self.bars, 0
        integrals, self.integrals = self.integrals, 0
        found = self.sum()
        self.bars, self.integrals = bars, integrals
        self.want(end)
        return found

    def group_tokens(self) -> list[str]:
        """The tokens inside the braces that open here, unread."""
        self.want("{")
        start, depth = self.place, 1
        while depth:
            sign = self.take()
            if not sign:
                raise NotUnderstood("no }")
            depth += (sign == "{") - (sign == "}")
        return self.tokens[start : self.place - 1]

    def raw(self) -> str:
        """An argument as plain text, without styles and braces: the name of a subscript."""
        found = self.group_tokens() if self.peek() == "{" else [self.take()]
        if found and found[0] in STYLES | BOLD and self.peek() == "{" and len(found) == 1:
            found = self.group_tokens()  # v_\text{in}
        return "".join(t for t in found if t not in STYLES | BOLD and t not in "{}")

    # ------------------------------------------------------------ atoms
    def atom(self) -> Node:
        sign = self.take()
        if not sign:
            raise NotUnderstood("the end")
        if NUMBER.match(sign):
            return self.mixed(Fraction(sign))
        if re.fullmatch("[A-Za-z]", sign):
            return self.letter(sign)
        if sign in ("(", "{", "[", r"\{", "|", r"\lfloor", r"\lceil", r"\lvert", r"\|"):
            return self.enclosed(sign)
        if sign in FUNCTIONS:
            return self.function(sign)
        if sign in GATHERING and self.peek() in ("(", r"\{", "{", "["):
            return Node("call", (sign, *self.several()))
        if sign in BOLD:
            return self.bold(sign)
        if sign in ACCENTS:
            return self.symbol(f"{sign.replace('overline', 'bar')} {self.raw()}")
        if sign in STYLES:
            return self.styled(sign)
        if sign in (r"\sum", r"\prod"):
            return self.series(sign)
        reader = COMMANDS.get(sign)
        if reader:
            return reader(self)
        if sign == r"\Gamma" and self.peek() == "(":
            return Node("call", (sign, self.group("(", ")")))
        if sign in GREEK:
            return self.symbol(SAME_LETTER.get(sign, sign))
        raise NotUnderstood(sign)

    def mixed(self, value: Fraction) -> Node:
        r"""A number, with the fraction of a mixed number: 5\frac12."""
        after = self.tokens[self.place + 1 : self.place + 7]
        plain = "".join(after)
        fraction = re.match(r"\{(\d+)\}\{(\d+)\}|(\d)(\d)$|(\d)\{(\d+)\}", plain)
        if value.denominator == 1 and self.peek() == r"\frac" and fraction:
            self.take()
            return Node("sum", (number_node(value), self.fraction()))
        return Node("number", (value,))

    def fraction(self) -> Node:
        return Node("quotient", (self.argument(), self.argument()))

    def letter(self, letter: str) -> Node:
        if letter in self.bound:
            return self.symbol(letter)
        if letter == "i" and self.peek() != "_":
            return Node("constant", ("i",))
        if letter == "e" and self.peek() != "_":
            return Node("constant", ("e",))
        return self.symbol(letter)

    def symbol(self, name: str) -> Node:
        if self.takes("_"):
            below = self.raw()
            if re.fullmatch(r"[a-z0-9]+(?:\+[a-z0-9]+)+", below):  # 1+n is n+1
                below = "+".join(sorted(below.split("+"), reverse=True))
            name += "_" + below
        return self.applied(name, name)

    def applied(self, name: str, head: str) -> Node:
        """A letter, applied to the brackets behind it where it is a function."""
        if head in self.functions and self.peek() == "(":
            return Node("applied", (name, *self.several()))
        if self.matrices and re.fullmatch("[A-Z](_.+)?", name):
            return Node("matrix", (name,))
        return Node("symbol", (name,))

    def several(self) -> list[Node]:
        """Arguments in brackets, with commas between them."""
        opening = self.take()
        end = {"(": ")", r"\{": r"\}", "{": "}", "[": "]"}[opening]
        bars, self.bars = self.bars, 0
        found = [self.sum()]
        while self.takes(","):
            found.append(self.sum())
        self.bars = bars
        self.want(end)
        return found

    def enclosed(self, opening: str) -> Node:
        end = {"(": ")", "{": "}", "[": "]", r"\{": r"\}", "|": "|", r"\lfloor": r"\rfloor",
               r"\lceil": r"\rceil", r"\lvert": r"\rvert", r"\|": r"\|"}[opening]  # fmt: skip
        bars, self.bars = self.bars, int(opening == "|")
        integrals, self.integrals = self.integrals, 0
        found = [self.sum()]
        while opening in "([" and self.takes(","):
            found.append(self.sum())
        self.bars, self.integrals = bars, integrals
        self.want(end)
        if len(found) > 1:
            return Node("tuple", tuple(found))
        name = {"|": r"\abs", r"\lvert": r"\abs", r"\|": r"\abs", r"\lfloor": r"\floor",
                r"\lceil": r"\ceil"}.get(opening)  # fmt: skip
        if name:
            return Node("call", (name, found[0]))
        return Node("bracket", (found[0],)) if opening in "([" else found[0]

    # ------------------------------------------------------------ functions
    def function(self, name: str) -> Node:
        base = power = None
        while self.peek() in ("_", "^"):
            if self.take() == "_":
                base = self.argument()
            else:
                power = self.argument()
        if power == Node("minus", (number_node(1),)) and name in INVERSE:
            name, power = INVERSE[name], None
        argument = self.operand()
        if name in (r"\log", r"\lg"):
            # Without a base, \log is the natural one, as in what is compared with it.
            base = number_node(10) if name == r"\lg" else base
            found = Node("call", (r"\log", argument, *([base] if base else [])))
        else:
            found = Node("call", (name, argument))
        return Node("power", (found, power)) if power else found

    def operand(self) -> Node:
        r"""What a function without brackets is applied to: \sin 2x, \ln\frac12."""
        if self.peek() in ("(", "{", "["):
            first = self.atom()
            while self.peek() == "!":
                self.take()
                first = Node("factorial", (first,))
            return first
        if self.takes("-"):
            return Node("minus", (self.operand(),))
        factors = [self.factor()]
        while self.starts_factor(self.peek()) and not self.ends_operand():
            factors.append(self.factor())
        return product(*factors)

    def ends_operand(self) -> bool:
        sign = self.peek()
        return (
            sign in FUNCTIONS or sign in "(["
            or (sign == "e" and self.peek(1) == "^")
            or sign in (r"\sqrt", r"\sum", r"\int", r"\prod")
        )  # fmt: skip

    # ------------------------------------------------------------ commands
    def root(self) -> Node:
        degree = self.group("[", "]") if self.peek() == "[" else number_node(2)
        return Node("root", (self.argument(), degree))

    def binomial(self) -> Node:
        return Node("binomial", (self.argument(), self.argument()))

    def derivative(self) -> Node:
        order, name, by = self.raw(), self.raw(), self.raw()
        return self.applied(f"D{order} {name}/{by}", name)

    def styled(self, style: str) -> Node:
        r"""\mathrm{d}, \text{cis}: a letter or the name of a function."""
        inner = self.group_tokens() if self.peek() == "{" else [self.take()]
        word = "".join(inner)
        if f"\\{word}" in FUNCTIONS:
            return self.function(f"\\{word}")
        if re.fullmatch("[A-Za-z]", word):
            return self.letter(word)
        if re.fullmatch(r"\d+", word):
            return number_node(int(word))
        if style in (r"\mathrm", r"\mathit", r"\mathsf", r"\mathcal") and word.isalpha():
            return product(*(Node("symbol", (letter,)) for letter in word))
        raise NotUnderstood(f"the word {word}")

    def bold(self, style: str) -> Node:
        inner = self.group_tokens() if self.peek() == "{" else [self.take()]
        inner = [t for t in inner if t not in STYLES]
        word = "".join(inner)
        if self.vectors and style == r"\hat" or word in ("i", "j", "k"):
            if self.vectors and word in ("i", "j", "k") and self.peek() != "_":
                return Node("unit", ("ijk".index(word),))
        if word.isdigit():
            return self.mixed(Fraction(word))
        if not self.vectors:
            return self.letter(word) if len(word) == 1 else self.symbol(word)
        name = word + ("_" + self.raw() if self.takes("_") else "")
        big = style in (r"\mathbf", r"\boldsymbol", r"\bm") and word.isupper()
        return Node("matrix" if big and self.matrices else "vector", (name,))

    def series(self, name: str) -> Node:
        r"""\sum and \prod with both limits."""
        self.want("_")
        self.want("{")
        bound = self.raw() if self.peek() == "{" else self.take()
        self.want("=")
        low = self.sum()
        self.want("}")
        self.want("^")
        high = self.argument()
        self.bound.append(bound)
        body = self.product()
        self.bound.pop()
        return Node("series", (name, bound, low, high, body))

    def integral(self) -> Node:
        r"""\int with both limits; the body ends at d and a letter."""
        self.want("_")
        low = self.argument()
        self.want("^")
        high = self.argument()
        self.integrals += 1
        body = number_node(1) if self.peek() == "d" else self.sum()
        self.integrals -= 1
        self.want("d")
        return Node("integral", (self.take(), low, high, body))

    def angled(self) -> Node:
        r"""A vector in \langle \rangle."""
        found = [self.sum()]
        while self.takes(","):
            found.append(self.sum())
        self.want(r"\rangle")
        return Node("grid", tuple((part,) for part in found))

    def grid(self) -> Node:
        r"""The cells of \begin{pmatrix}."""
        name = "".join(self.group_tokens())
        if not MATRIX.fullmatch(name):
            raise NotUnderstood(name)
        if name == "array" and self.peek() == "{":
            self.group_tokens()
        rows: list[list[Node]] = [[]]
        while not self.takes(r"\end"):
            if self.takes("&"):
                continue
            if self.takes(r"\\"):
                rows.append([])
                continue
            rows[-1].append(self.sum())
        self.group_tokens()
        kept = [tuple(row) for row in rows if row]
        if not kept or len({len(row) for row in kept}) > 1:
            raise NotUnderstood("rows of unequal length")
        found = Node("grid", tuple(kept))
        return Node("call", (r"\det", found)) if name == "vmatrix" else found


def _sum(terms: list[Node]) -> Node:
    return terms[0] if len(terms) == 1 else Node("sum", tuple(terms))


COMMANDS = {
    r"\frac": _Parser.fraction, r"\sqrt": _Parser.root, r"\binom": _Parser.binomial,
    r"\dbinom": _Parser.binomial, r"\tbinom": _Parser.binomial, r"\deriv": _Parser.derivative,
    r"\int": _Parser.integral, r"\begin": _Parser.grid,
    r"\pi": lambda self: Node("constant", ("pi",)),
    r"\infty": lambda self: Node("constant", ("infinity",)),
    r"\langle": lambda self: self.angled(),
}  # fmt: skip


BINDING = {"series": 1, "integral": 0}  # the place of the bound letter


@lru_cache(4096)
def symbols(node: Node) -> frozenset[str]:
    """The free unknowns: names of symbols, vectors, matrices and derivatives."""
    if node.op in ("symbol", "vector", "matrix"):
        return frozenset(node.args)
    inner = frozenset[str]().union(*map(symbols, operands(node)))
    bound = BINDING.get(node.op)
    return inner if bound is None else inner - {node.args[bound]}


def operands(node: Node) -> list[Node]:
    """The nodes among the arguments, those of a grid cell by cell."""
    if node.op == "grid":
        return [cell for row in node.args for cell in row]
    return [part for part in node.args if isinstance(part, Node)]


@lru_cache(4096)
def operations(node: Node) -> frozenset[str]:
    """The operations of a tree, and the names of the functions and constants in it."""
    own = {node.op}
    if node.op in ("call", "constant", "series"):
        own.add(node.args[0])
    return frozenset(own).union(*map(operations, operands(node)))


def renamed(node: Node, names: dict[str, str]) -> Node:
    """The tree with its unknowns renamed."""
    if node.op in ("symbol", "vector", "matrix"):
        return Node(node.op, (names.get(node.args[0], node.args[0]),))
    if node.op == "grid":
        return Node("grid", tuple(tuple(renamed(c, names) for c in row) for row in node.args))
    return Node(
        node.op, tuple(renamed(p, names) if isinstance(p, Node) else p for p in node.args)
    )
