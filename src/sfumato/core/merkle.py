"""A Merkle tree over the ledger's rows: short proofs that a row is in a book, or that a book only grew.

Who holds a root (32 bytes) can check that one row belongs to the book it was taken of, without the book: the
proof is some 17 hashes for 100,000 rows. The tree is that of RFC 9162, section 2.1: SHA-256, leaves and nodes
told apart by their first byte. A leaf is a row's hash.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from sfumato.core.errors import IntegrityError, InvalidRequest

HASH = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Proof:
    """That a row is in a ledger of a size.

    >>> rows = [hashlib.sha256(bytes([n])).hexdigest() for n in range(7)]
    >>> proof = Proof("", 3, 7, rows[2], inclusion(rows, 3))
    >>> proof.verify(root(rows))

    Args:
        ledger: the ledger's own name.
        seq: the row's number, from 1.
        size: how many rows the ledger had.
        row: the row's hash, as hex.
        path: the hashes beside the way from the row to the root.
    """

    ledger: str
    seq: int
    size: int
    row: str
    path: tuple[str, ...]

    def verify(self, root: str) -> None:
        """Check the proof against a root that is trusted.

        Raises:
            IntegrityError: the row is not in the tree with that root.
        """
        if not HASH.fullmatch(root) or computed(self) != root:
            raise IntegrityError(
                f"row {self.seq} ({self.row[:16]}) is not shown to be in the ledger of {self.size} rows with "
                f"root {root[:16]}: the proof was changed, or belongs to another row, size or ledger"
            )

    def to_data(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self) | {"path": list(self.path)}

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Self:
        """Read a proof from plain data."""
        try:
            proof = cls(data["ledger"], data["seq"], data["size"], data["row"], tuple(data["path"]))
        except (KeyError, TypeError) as error:
            raise InvalidRequest(f"this is not a whole proof: {error}") from error
        _check(proof, (proof.seq, proof.size), (proof.ledger, proof.row, *proof.path))
        return proof


@dataclass(frozen=True, slots=True)
class GrowthProof:
    """That a ledger of `size` rows begins with the same rows as it had when it was of size `before`."""

    ledger: str
    before: int
    size: int
    path: tuple[str, ...]

    def verify(self, root_before: str, root: str) -> None:
        """Check the proof against both roots.

        Raises:
            IntegrityError: rows that were in the smaller tree were changed, removed or reordered.
        """
        if not _grew(self, root_before, root):
            raise IntegrityError(
                f"the ledger of {self.size} rows with root {root[:16]} is not shown to continue the one of "
                f"{self.before} rows with root {root_before[:16]}: rows were changed, or the proof was"
            )

    def to_data(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self) | {"path": list(self.path)}

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Self:
        """Read a proof from plain data."""
        try:
            proof = cls(data["ledger"], data["before"], data["size"], tuple(data["path"]))
        except (KeyError, TypeError) as error:
            raise InvalidRequest(f"this is not a whole proof: {error}") from error
        _check(proof, (proof.before, proof.size), (proof.ledger, *proof.path))
        return proof


def root(rows: Sequence[str]) -> str:
    """Return the root of a tree over row hashes (hex); of no rows, the hash of nothing."""
    return _root([_leaf(row) for row in rows]).hex() if rows else hashlib.sha256(b"").hexdigest()


def inclusion(rows: Sequence[str], seq: int) -> tuple[str, ...]:
    """Return the path of a row, by number from 1, in the tree over `rows`.

    Raises:
        InvalidRequest: there is no such row.
    """
    if not 1 <= seq <= len(rows):
        raise InvalidRequest(f"a row to prove must lie in 1..{len(rows)}, got {seq}")
    leaves, index, path = [_leaf(row) for row in rows], seq - 1, []
    while len(leaves) > 1:
        half = _half(len(leaves))
        left, right = leaves[:half], leaves[half:]
        here, beside = (left, right) if index < half else (right, left)
        path.append(_root(beside).hex())
        leaves, index = here, index if index < half else index - half
    return tuple(reversed(path))


def growth(rows: Sequence[str], before: int) -> tuple[str, ...]:
    """Return the path that shows that the tree over `rows` continues that over the first `before` of them.

    Raises:
        InvalidRequest: it never had that size.
    """
    if not 1 <= before <= len(rows):
        raise InvalidRequest(f"an earlier size must lie in 1..{len(rows)}, got {before}")
    leaves, path, known = [_leaf(row) for row in rows], [], True
    while before != len(leaves):
        half = _half(len(leaves))
        if before <= half:
            path.append(_root(leaves[half:]).hex())
            leaves = leaves[:half]
        else:
            path.append(_root(leaves[:half]).hex())
            leaves, before, known = leaves[half:], before - half, False
    if not known:
        path.append(_root(leaves).hex())
    return tuple(reversed(path))


def computed(proof: Proof) -> str:
    """Return the root that a proof leads to; empty where its path has the wrong length. RFC 9162, 2.1.3.2."""
    index, last = proof.seq - 1, proof.size - 1
    if not 0 <= index <= last or not HASH.fullmatch(proof.row):
        return ""
    value = _leaf(proof.row)
    for step in proof.path:
        if last == 0 or not HASH.fullmatch(step):
            return ""
        beside = bytes.fromhex(step)
        if index & 1 or index == last:
            value = _node(beside, value)
            while not index & 1 and index:
                index, last = index >> 1, last >> 1
        else:
            value = _node(value, beside)
        index, last = index >> 1, last >> 1
    return value.hex() if last == 0 else ""


def _grew(proof: GrowthProof, root_before: str, root: str) -> bool:
    """RFC 9162, section 2.1.4.2."""
    if not 1 <= proof.before <= proof.size or not all(map(HASH.fullmatch, (*proof.path, root_before, root))):
        return False
    if proof.before == proof.size:
        return not proof.path and root_before == root
    path = [bytes.fromhex(step) for step in proof.path]
    if not proof.before & (proof.before - 1):
        path.insert(0, bytes.fromhex(root_before))
    if not path:
        return False
    index, last = proof.before - 1, proof.size - 1
    while index & 1:
        index, last = index >> 1, last >> 1
    old = new = path[0]
    for step in path[1:]:
        if last == 0:
            return False
        if index & 1 or index == last:
            old, new = _node(step, old), _node(step, new)
            while not index & 1 and index:
                index, last = index >> 1, last >> 1
        else:
            new = _node(new, step)
        index, last = index >> 1, last >> 1
    return last == 0 and old.hex() == root_before and new.hex() == root


def _leaf(row: str) -> bytes:
    return hashlib.sha256(b"\x00" + bytes.fromhex(row)).digest()


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def _half(size: int) -> int:
    """Return the largest power of two below a size of two or more."""
    return 1 << (size - 1).bit_length() - 1


def _root(leaves: Sequence[bytes]) -> bytes:
    """Join neighbours level by level; one left over goes up as it is, which gives RFC 9162's split."""
    level = list(leaves)
    while len(level) > 1:
        odd = level[-1:] if len(level) & 1 else []
        level = [_node(left, right) for left, right in zip(level[::2], level[1::2], strict=False)] + odd
    return level[0]


def _check(proof: Proof | GrowthProof, numbers: tuple[int, ...], texts: tuple[str, ...]) -> None:
    if any(type(number) is not int for number in numbers) or any(type(text) is not str for text in texts):
        raise InvalidRequest(f"this is not a whole proof: numbers and hashes are mixed up in {proof!r:.200}")
