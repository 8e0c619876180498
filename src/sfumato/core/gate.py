"""The gate: the only door out. Plan, permit, receipt.

    with gate.open(plan) as permit:      # policy checked, budget charged, durably
        noise = permit.entropy.bytes(32) # only now can noise be drawn
        ...
        receipt = permit.settle(outputs)

A crash, an exception or a kill after `open` leaves the charge standing. It is taken back only when the block
ends by an exception before any noise was drawn and before anything was released.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

from sfumato._version import __version__
from sfumato.core import claims, purposes, vaults, versions
from sfumato.core.anchor import Head
from sfumato.core.book import Entry
from sfumato.core.consent import Decision, Evidence, Register
from sfumato.core.entropy import SYSTEM, Entropy
from sfumato.core.errors import InvalidRequest, PolicyRefused, ReceiptInvalid, SfumatoError
from sfumato.core.event import Event, NoEvent
from sfumato.core.files import digest_of, make_private
from sfumato.core.identity import LOCAL_OWNER, Actor
from sfumato.core.ledger import Ledger
from sfumato.core.numbers import Amount
from sfumato.core.policy import ACTIONS, RIGHTS, Policy
from sfumato.core.receipt import GUARANTEES, GuaranteeType, Output, Receipt

UNDECLARED = "not declared"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One release, described before it happens.

    >>> plan = Plan(action="redact", mechanism="redaction", guarantee="heuristic", statement="faces hidden")
    >>> plan.purpose
    'not declared'

    Args:
        action: what kind of release; a purpose lists the actions it allows.
        mechanism: what will be run, and with which parameters (plain data without personal data).
        guarantee: proven, tested or heuristic; a plan with an event is `proven`.
        statement: the guarantee in one sentence, with unit, relation and assumptions where it is proven.
        limits: what the guarantee does not cover, a sentence each.
        purpose: a purpose of the policy.
        event: what it does to the privacy budget.
        population, share: whose budget pays, and from which part.
        delta: for a share of kind `sum`, the part of its delta that this release takes.
        datasets: the datasets that are read, as (name, version).
        consent: what the consent register answered, for a purpose that rests on consent.
        blocks: of the population, where it has any (core/blocks.py); empty: all that exist by now.
        also: further (population, share) that pay for the same event, with all their blocks.
    """

    action: str
    mechanism: str
    guarantee: GuaranteeType
    statement: str
    limits: tuple[str, ...] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)
    purpose: str = UNDECLARED
    event: Event = field(default_factory=NoEvent)
    population: str = ""
    share: str = ""
    delta: Amount = 0
    datasets: tuple[tuple[str, str], ...] = ()
    consent: Evidence | None = None
    blocks: tuple[str, ...] = ()
    also: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if self.guarantee not in GUARANTEES:
            raise InvalidRequest(f"guarantee must be one of {', '.join(GUARANTEES)}, got {self.guarantee!r}")
        if (self.guarantee == "proven") == isinstance(self.event, NoEvent):
            raise InvalidRequest("a guarantee is 'proven' exactly when the plan has a privacy event")
        for item in self.datasets:
            if not isinstance(item, tuple) or [type(part) for part in item] != [str, str]:
                raise InvalidRequest(f"datasets are pairs of name and version, got {item!r}")
        if self.action in RIGHTS and not isinstance(self.event, NoEvent):
            raise InvalidRequest(
                f"the action {self.action!r} is a person's right and passes whatever the purposes say, so "
                "nothing may leave under it: plan a release as a release"
            )

    def to_data(self) -> dict[str, Any]:
        """Return plain data, as the receipt shows it."""
        data: dict[str, Any] = {
            "action": self.action,
            "mechanism": self.mechanism,
            "parameters": dict(self.parameters),
            "purpose": self.purpose,
            "event": self.event.to_data(),
        }
        if self.population:
            data |= {"population": self.population, "share": self.share}
        if self.blocks:
            data["blocks"] = list(self.blocks)
        if self.also:
            data["also"] = [list(pair) for pair in self.also]
        if self.datasets:
            # A version is a hash of content: beside a noisy answer, it would let guesses be tested.
            proven = self.guarantee == "proven"
            data["datasets"] = [
                {"name": n} if proven else {"name": n, "version": v} for n, v in self.datasets
            ]
        return data


class Permit:
    """The right to make one release, already charged. Get one from `Gate.open`, as a context manager."""

    def __init__(self, gate: Gate, plan: Plan, reservation: Entry | None, claim: int | None = None) -> None:
        self._gate, self.plan, self._reservation, self._claim = gate, plan, reservation, claim
        self._drew = bool(claim)  # who was here before may have drawn noise
        self._released = self._ended = False

    @property
    def entropy(self) -> Entropy:
        """The source of all noise of this release. Asking for it makes the charge final."""
        self.check()
        self._drew = True
        return self._gate._entropy

    def check(self) -> None:
        """Refuse where this permit has ended, or another process took up its release (`Gate.resume`).

        Raises:
            InvalidRequest: it has ended; PolicyRefused: somebody else goes on with it.
        """
        if self._ended:
            raise InvalidRequest("this permit has ended; plan a new release")
        if self._claim is not None and self._reservation is not None:
            claims.check(self._gate._here(), self._reservation.seq, self._claim)

    @property
    def reservation(self) -> int | None:
        """Number of the ledger row that charged this release; None where nothing is recorded."""
        return self._reservation.seq if self._reservation is not None else None

    def releasing(self) -> None:
        """Say that something is about to leave; from here on the charge is final."""
        self.check()
        self._released = True

    def settle(
        self,
        outputs: Iterable[Output] = (),
        *,
        facts: Mapping[str, Any] | None = None,
        event: Event | None = None,
    ) -> Receipt:
        """End the release and return its receipt.

        Args:
            outputs: the released files.
            facts: counts, models and settings for the reader; plain data without personal data.
            event: what took place, where it was less than planned (an early stop).
        """
        self.check()
        outputs = tuple(outputs)
        if outputs and self.plan.action in RIGHTS:
            raise InvalidRequest(
                f"the action {self.plan.action!r} releases nothing; got {len(outputs)} outputs"
            )
        body = self._body(outputs, facts or {}, event)
        self._released = True
        if self._reservation is None:
            self._ended = True
            return Receipt(body).verify()
        settled = self._gate._end(self._reservation.seq, digest_of(body), event)
        self._ended = True
        receipt = Receipt(body, self._gate._rows(self._reservation, settled)).verify()
        self._gate._keep(receipt)
        return receipt

    def _body(
        self, outputs: Iterable[Output], facts: Mapping[str, Any], event: Event | None
    ) -> dict[str, Any]:
        plan, gate = self.plan, self._gate
        body: dict[str, Any] = {
            "made_by": f"sfumato {__version__}",
            "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "guarantee": {"type": plan.guarantee, "statement": plan.statement, "limits": list(plan.limits)},
            "plan": plan.to_data(),
            "plan_digest": digest_of(plan.to_data()),
            "outputs": [{"sha256": output.sha256, "bytes": output.bytes} for output in outputs],
            "facts": dict(facts),
            "ledger": gate.ledger.id if gate.ledger is not None else None,
        }
        if gate.actor.who:
            body["by"] = {"role": gate.actor.role}
        if event is not None:
            body["settled_event"] = event.to_data()
        if self._drew and not gate._entropy.private:
            body["not_private"] = "the noise came from a seeded source, for tests: anyone can take it away"
        return body

    def __enter__(self) -> Permit:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None or self._ended:
            return
        self._ended = True
        if self._reservation is not None and not (self._drew or self._released):
            self._gate._void(self._reservation.seq, "ended before any noise was drawn or anything released")


class Gate:
    """Checks the policy, charges the ledger, and hands out permits.

    Args:
        policy, ledger: the project's; both None: outside a project, where only plans without a privacy event
            pass, and nothing is recorded.
        receipts: folder that keeps a copy of every receipt; they also guard the ledger against rollback.
        entropy: the source of noise; a seeded one is for tests, and stamps receipts.
        actor: who asks; None: the one local owner of a project without roles.
        consent: the project's consent register, opened when a purpose rests on consent.
    """

    def __init__(
        self,
        policy: Policy | None = None,
        ledger: Ledger | None = None,
        *,
        receipts: Path | None = None,
        entropy: Entropy = SYSTEM,
        actor: Actor | None = None,
        consent: Callable[[], Register] | None = None,
    ) -> None:
        if (policy is None) != (ledger is None):
            raise InvalidRequest("a gate needs both a policy and a ledger, or neither")
        if policy is not None and policy.roles is not None and actor is None:
            raise InvalidRequest("the policy declares roles: tell the gate who acts, or use Project.gate()")
        self.actor, self._consent = actor or LOCAL_OWNER, consent
        self.policy, self.ledger, self.receipts, self._entropy = policy, ledger, receipts, entropy
        if ledger is not None and receipts is not None:
            ledger.know(newest_heads(receipts, ledger.id))

    def check(self, plan: Plan) -> None:
        """Check a plan against the policy, without charging anything; a refusal is recorded.

        What is a person's right (`policy.RIGHTS`: to be erased) needs no purpose, and none can forbid it; in
        return it can have no privacy event and no outputs.

        Raises:
            PolicyRefused: names the rule, what was asked, and what would pass.
        """
        if self.policy is None:
            if not isinstance(plan.event, NoEvent):
                raise PolicyRefused(
                    f"{plan.mechanism} spends a privacy budget, and there is no project here to charge. "
                    "Run `sfumato init` in the folder of your data, declare a population, and try again."
                )
            return
        try:
            purposes.check(self.policy, plan, self.actor, purposes.clock(self.ledger), self.ledger)
            self._check_consent(plan, self.policy)
            if self.ledger is not None and not isinstance(plan.event, NoEvent):
                versions.check(self.ledger, plan)
        except PolicyRefused as refusal:
            self._note(plan, refusal, self.policy)
            raise

    def ask(self, purpose: str, pseudonyms: Iterable[str]) -> Decision | None:
        """Ask the consent register about people, where a purpose rests on consent; None where it does not.

        Raises:
            PolicyRefused: the purpose rests on consent, and this gate has no register.
        """
        declared = self.policy.purposes.get(purpose) if self.policy is not None else None
        if declared is None or declared.lawful_basis != "consent":
            return None
        return self._register(purpose).decide(pseudonyms, purpose, hashed=True)

    def refuse(self, plan: Plan, refusal: PolicyRefused) -> NoReturn:
        """Record a refusal that was found outside the gate, and raise it."""
        if self.policy is not None:
            self._note(plan, refusal, self.policy)
        raise refusal

    def _check_consent(self, plan: Plan, policy: Policy) -> None:
        purpose = policy.purposes.get(plan.purpose)
        if plan.action in RIGHTS or purpose is None or purpose.lawful_basis != "consent":
            return
        self._register(plan.purpose).check(plan.purpose, plan.consent)

    def _register(self, purpose: str) -> Register:
        if self._consent is None:
            raise PolicyRefused(
                f"the purpose {purpose!r} rests on consent, and this gate has no consent register: use "
                "Project.gate()",
                rule=f"purposes.{purpose}.lawful_basis",
            )
        return self._consent()

    def _note(self, plan: Plan, refusal: PolicyRefused, policy: Policy) -> None:
        """Record a refusal: which rule, asked by whom; no word that the policy does not know."""
        assert self.ledger is not None
        known = plan.purpose if plan.purpose in policy.purposes else UNDECLARED
        action = plan.action if plan.action in ACTIONS else "other"
        body = {"rule": refusal.rule, "action": action, "purpose": known}
        self.ledger.note("refusal", "", body | self._by())

    def _by(self) -> dict[str, Any]:
        return {"by": self.actor.label()} if self.actor.who else {}

    def open(self, plan: Plan, *, key: bytes = b"") -> Permit:
        """Check a plan, charge it durably, and return the permit.

        Args:
            key: 32 secret bytes; whoever has them may take the release up again after a crash (`resume`).

        Raises:
            PolicyRefused, BudgetSpent, IntegrityError: nothing was charged.
        """
        self.check(plan)
        if self.ledger is None:
            return Permit(self, plan, None)
        declared = self.policy.purposes.get(plan.purpose) if self.policy is not None else None
        basis = declared.lawful_basis if declared is not None else ""
        lock = {"resumable": claims.lock_of(key)} if key else {}
        entry = self.ledger.reserve(
            {
                "action": plan.action,
                "mechanism": plan.mechanism,
                "purpose": plan.purpose,
                **({"lawful_basis": basis} if basis else {}),  # of its day: a later policy may say otherwise
                "guarantee": plan.guarantee,
                "digest": digest_of(plan.to_data()),
                # What is made visible again stands in the book itself, before it is: not only in a receipt.
                **({"about": dict(plan.parameters)} if plan.action == "restore" else {}),
                **lock,
                **self._by(),
            },
            plan.event,
            population=plan.population,
            share=plan.share,
            delta=plan.delta,
            blocks=plan.blocks,
            also=plan.also,
        )
        return Permit(self, plan, entry, 0 if key else None)

    def resume(self, reservation: int, plan: Plan, *, key: bytes, steps: int) -> Permit:
        """Take up a release that was reserved with a key and did not end; nothing is charged again.

        From here on the process that had it draws no more noise and ends nothing (core/claims.py).

        Args:
            reservation: number of its row in the ledger.
            plan: exactly as it was reserved; it is checked against the policy of today.
            key: that it was opened with.
            steps: how many of its steps have begun, by its own journal.

        Raises:
            InvalidRequest: no such reservation, or it has ended; PolicyRefused: another key or plan, or the
                policy; IntegrityError: the journal is older than what the ledger knows.
        """
        self.check(plan)
        digest = digest_of(plan.to_data())
        entry, claim = claims.take(self._here(), reservation, key, digest, steps, self._by())
        return Permit(self, plan, entry, int(claim.body["number"]))

    def record_version(
        self,
        *,
        dataset: str,
        label: str,
        hash: str,
        how: str,
        parents: Sequence[str],
        populations: Mapping[str, Sequence[str]],
    ) -> Entry:
        """Write a version of a dataset into the ledger, once: only then can a private release use it.

        Args:
            how: the reader's name for what came in at the door; "blocks" for a view of some blocks alone.
            parents: hashes of the versions that it was made from.
            populations: population -> blocks that it touches; none named: all that exist by now.

        Raises:
            PolicyRefused: not a curator's right, or it leaves out what its parents touch.
            IntegrityError: the label stands there with another hash.
        """
        body = {"dataset": dataset, "label": label, "hash": hash, "how": how, "parents": list(parents)}
        return versions.record(self._curated(), body, populations, self._by())

    def record_cut(self, *, dataset: str, label: str, hash: str, parent: str) -> Entry:
        """Write into the ledger, once, a version that people left who do not agree to a purpose.

        Sfumato makes such a version, not a curator: whoever may release data may record it. It is called
        after the version that they left ("2w1"), and touches the same populations and blocks.

        Args:
            parent: hash of the version that they left.

        Raises:
            PolicyRefused: no right to any release, or the ledger has no such version to be cut from.
            IntegrityError: the label stands there with another hash.
        """
        if not any(self.actor.may(action) for action in ACTIONS if action not in RIGHTS):
            self.actor.require("curate")
        body = {"dataset": dataset, "label": label, "hash": hash}
        return versions.record_cut(self._here(), body, parent, self._by())

    def record_retired(self, *, dataset: str, label: str, hash: str, why: str) -> Entry:
        """Write into the ledger, once, that a version was retired: by "retention", "vault" or "by hand".

        Raises:
            PolicyRefused: not a curator's right; InvalidRequest: no such version or reason.
        """
        body = {"dataset": dataset, "label": label, "hash": hash, "why": why}
        return versions.retire(self._curated(), body, self._by())

    def record_vault(self, *, vault: str, what: str) -> Entry:
        """Write into the ledger that the project's vault was "made" (once) or "rotated".

        Raises:
            PolicyRefused: not a curator's right; IntegrityError: the ledger knows another vault.
        """
        return vaults.record(self._curated(), vault, what, self._by())

    def _curated(self) -> Ledger:
        self.actor.require("curate")
        return self._here()

    def _here(self) -> Ledger:
        if self.ledger is None:
            raise InvalidRequest("there is no project here, and so no ledger: run `sfumato init`")
        return self.ledger

    def _rows(self, *entries: Entry) -> tuple[Entry, ...]:
        assert self.ledger is not None
        return tuple(row for entry in entries for row in self.ledger.rows_of(entry))

    def _end(self, seq: int, receipt: str, event: Event | None) -> Entry:
        assert self.ledger is not None
        return self.ledger.settle(seq, receipt=receipt, event=event)

    def _void(self, seq: int, reason: str) -> None:
        assert self.ledger is not None
        try:
            self.ledger.void(seq, reason=reason)
        except SfumatoError:
            # The exception on its way out matters more, and a charge that stands is the safe side.
            return

    def _keep(self, receipt: Receipt) -> None:
        if self.receipts is not None:
            make_private(self.receipts)
            receipt.write(self.receipts / f"{receipt.rows[-1].seq:012d}-{receipt.digest[:16]}.json")


def newest_heads(folder: Path, ledger: str) -> tuple[Head, ...]:
    """Return the ledger heads in the newest kept receipt that belongs to a ledger.

    Files that are no receipts of it are passed over: a stray file must neither stop the project nor hide the
    receipt that would show a rollback.
    """
    # Names begin with the row number, zero-padded; files still being written begin with a dot.
    for path in sorted(folder.glob("[0-9]*.json"), reverse=True):
        try:
            receipt = Receipt.read(path)
        except ReceiptInvalid:
            continue
        ours = receipt.rows and receipt.body.get("ledger") == ledger
        if ours and path.name.startswith(f"{receipt.rows[-1].seq:012d}-"):
            return receipt.heads
    return ()


def public(plan: Plan) -> str:
    """Return a plan as indented JSON, for people to read before they run it."""
    return json.dumps(plan.to_data(), indent=2)
