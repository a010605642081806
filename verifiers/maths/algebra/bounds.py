"""What may be computed: limits that are checked before the work, so that nothing explodes.

The idea: a short text can stand for a number with more digits than there are atoms. Each operation that can blow up
asks here first: an exact power or factorial by the bits its result would have, a power or gamma function in floating
point by the bits of its argument, a sum by its terms.
The law: what is refused raises `TooLarge`, which ends as "cannot be said", never as a verdict.
"""

from __future__ import annotations

from fractions import Fraction

#: Nodes of one tree.
NODES = 2_000
#: Nodes inside one another; what follows recurses over trees, about five frames a node.
DEPTH = 200
#: Bits of an exact number; 60,000 digits, so that 1/2004! and 2^2005 are exact.
EXACT_BITS = 200_000
#: Bits of an argument of a power, an exponential or a factorial in floating point: mpmath keeps exponents exactly.
ARGUMENT_BITS = 60
#: Terms of a sum or product, all its inner ones multiplied out.
TERMS = 2_000
#: Decimal digits up to which precision is raised to tell two values apart.
DIGITS = 6_000
#: Largest n whose factorial is made exactly.
FACTORIAL = 10_000
#: Most elements of two sets or lists of one length: matching them without order is quadratic.
ELEMENTS = 100


class TooLarge(ArithmeticError):
    """The value is past what may be computed."""


def check_tree(tree: object) -> None:
    """Raises TooLarge for a tree with more than `NODES` nodes or more than `DEPTH` inside one another."""
    count, waiting = 0, [(tree, 0)]
    while waiting:
        node, depth = waiting.pop()
        if isinstance(node, tuple):
            count += 1
            if count > NODES or depth > DEPTH:
                raise TooLarge("the tree")
            waiting.extend((part, depth + 1) for part in node)


def bits(value: Fraction) -> int:
    """Bits of the larger of numerator and denominator."""
    return max(value.numerator.bit_length(), value.denominator.bit_length())


def exact_power(base: Fraction, exponent: int) -> Fraction | None:
    """A whole power, or None where it would have too many bits."""
    if base in (0, 1, -1) or bits(base) * abs(exponent) <= EXACT_BITS:
        return base ** (exponent if base not in (1, -1) else exponent % 2)
    return None
