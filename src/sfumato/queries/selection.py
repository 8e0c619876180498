"""Groups that are chosen privately: those whose noisy number of people reaches a threshold.

Proof. Neighbours differ by one privacy unit, which counts in at most k groups. A group that occurs with both
neighbours is chosen by its noisy count, whose noise the statement's epsilon pays for. A group that occurs
with one of them only holds that unit alone: its count is 1, and it is chosen with probability P(1 + X >= t).
There are at most k such groups, so anything is told that epsilon does not pay for with probability k P(X >= t
- 1) at most, which is what delta is for. Under replace-one each of the two units has k groups of its own in
one of the
neighbours: 2 k (Korolova, Kenthapadi, Mishra and Ntoulas 2009; Desfontaines, Voss and Gipson 2020,
arXiv 2006.03684).
"""

from __future__ import annotations

from fractions import Fraction

from sfumato.core.errors import InvalidRequest
from sfumato.core.losses import REPLACE
from sfumato.core.numbers import float_down
from sfumato.mechanisms.exact import Kind as Law
from sfumato.queries import laws


def threshold(law: Law, scale: Fraction, groups: int, delta: Fraction, relation: str) -> int:
    """Return the least noisy number of people at which a group is shown.

    >>> threshold("laplace", Fraction(2), 1, Fraction(1, 10**6), "add-or-remove-one")
    28

    Args:
        law, scale: of the noise on numbers of people: Laplace's scale, or the variance of a Gaussian.
        groups: in how many groups one privacy unit counts.
        delta: the probability that a group is shown which one unit alone makes.

    Raises:
        InvalidRequest: a delta that is not above 0 and below 1.
    """
    if not 0 < delta < 1:
        raise InvalidRequest(f"choosing groups privately needs a delta above 0, got {delta}: such as 1e-7")
    alone = 2 * groups if relation == REPLACE else groups
    return 1 + laws.threshold(law, scale, float_down(delta / alone))
