"""Erasing a person, on the record: through the gate, by pseudonym."""

from __future__ import annotations

from sfumato.core.gate import Gate, Plan
from sfumato.core.receipt import Receipt
from sfumato.data.vault import Vault

LIMITS = (
    "copies of the key folder made before, such as backups, still hold the key: they must be destroyed too",
    "the key may remain for a while in memory, in swap, and in spare blocks of flash memory",
    "copies that had left the vault before (exports, redacted pictures, trained models) are not touched",
    "the pseudonym and the encrypted items remain, so that hashes and lineage verify",
)


def plan_for(subject: str) -> Plan:
    """Return the plan of an erasure: a person's right, which needs no purpose."""
    return Plan(
        action="erase",
        mechanism="crypto-shredding",
        guarantee="heuristic",
        statement="the person's keys were overwritten and removed; what they encrypted is unreadable",
        limits=LIMITS,
        parameters={"subject": subject},
        purpose="right to erasure",
    )


def erase(vault: Vault, subject: str, gate: Gate) -> Receipt:
    """Erase a subject and return the receipt; asking again records that too, and changes nothing else.

    Killed in the middle, the ledger shows an erasure that was not finished; opening the vault finishes it,
    and asking again completes the record.

    Args:
        subject: a pseudonym (`vault.pseudonym`).

    Raises:
        InvalidRequest: nothing here is about this subject; nothing was recorded.
        IntegrityError: the ledger does not verify.
    """
    vault.refuse_unknown(subject)
    with gate.open(plan_for(subject)) as permit:
        permit.releasing()
        return permit.settle(facts={"erased_at": vault.erase(subject)})
