"""A lawful restore: through the gate, in the ledger before a pixel is decrypted, with a receipt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sfumato.core.errors import InvalidRequest, PolicyRefused
from sfumato.core.files import sha256_of, whole
from sfumato.core.gate import UNDECLARED, Gate, Plan
from sfumato.core.receipt import Output, Receipt
from sfumato.core.verify import verify
from sfumato.redaction.job import Progress
from sfumato.redaction.sealed.put_back import check_target, put_back
from sfumato.redaction.sealed.room import Room
from sfumato.redaction.sealed.sidecar import Sealed

if TYPE_CHECKING:
    from sfumato.core.consent import Decision

#: Only its owner reads a restored file.
MODE = 0o600
#: A reason longer than this is a document, not a reference to one.
LONGEST_REASON = 300

NO_PURPOSE = (
    'a restore needs a purpose that the policy declares with the action "restore", and sfumato.toml declares '
    'none: write [purposes.NAME] actions = ["restore"], with its lawful_basis'
)
STATEMENT = (
    "What the redacted file hides was put back for the tracks named, from originals sealed when it was "
    "redacted. The result is personal data, as the source was."
)
LIMITS = (
    "Nothing is hidden any more where pixels were put back; what other tracks hide too stays hidden.",
    "Outside these places the picture is the redacted file's, coded again unless asked for bit for bit.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to be restored, and on what ground.

    Args:
        reason: such as the number of a court order; it stays in the ledger for ever, so it names no person.
        purpose: a purpose of the policy that allows the action "restore".
        tracks: numbers of tracks; empty: all.
        exact: write a video without any loss, to .mkv; a picture to .png or .tif.
    """

    reason: str
    purpose: str = UNDECLARED
    tracks: tuple[int, ...] = ()
    exact: bool = False

    def __post_init__(self) -> None:
        reason = self.reason.strip()
        if not reason or len(reason) > LONGEST_REASON or not reason.isprintable():
            raise InvalidRequest(
                f"a restore needs a reason of one line, at most {LONGEST_REASON} characters, such as the "
                f"number of a court order; it stays in the ledger. Got {self.reason[:40]!r}"
            )


def restore(
    room: Room,
    gate: Gate,
    output: Path,
    target: Path,
    order: Order,
    progress: Progress | None = None,
) -> Receipt:
    """Write a copy of a redacted file in which chosen tracks are visible again.

    Guarantee:
        - The ledger, verified whole, holds who restores which tracks of which output, for which purpose and
          why, before a pixel is decrypted. A process killed later leaves that row.
        - The restored file appears whole or not at all, readable by its owner only, and is named by the
          receipt.
        - Only pixels that no other track hides come back, bit for bit as they were before they were covered.

    Args:
        room: where originals are sealed.
        gate: of the project.
        output: the redacted file, as it was written.
        target: where to write; it must not exist.

    Raises:
        PolicyRefused: no right to restore, or the purpose does not allow it; that is recorded.
        IntegrityError: the ledger, the redacted file or the sealed file was changed.
        Erased: the tracks, or somebody they are about, were ended.
        InvalidRequest: no such track, or the target exists.
    """
    if target.exists():
        raise InvalidRequest(f"{target} exists already: a restore writes over nothing; choose another name")
    plan = check(gate, output, order)
    sealed = the_one(room, output)
    tracks = chosen_of(sealed, order.tracks)
    check_target(sealed, output, target, exact=order.exact)
    plan = _with_consent(gate, sealed, replace(plan, parameters={**plan.parameters, "tracks": list(tracks)}))
    sealed.check()
    with gate.open(plan) as permit, whole(target, mode=MODE) as aside:
        permit.releasing()
        touched = put_back(sealed, output, aside, tracks, exact=order.exact, progress=progress)
        if sha256_of(output) != sealed.output:
            raise InvalidRequest(f"{output.name} was changed while it was read; nothing was written")
        receipt = permit.settle([Output.of(aside)], facts={"frames": touched, "tracks": len(tracks)})
    return receipt


def check(gate: Gate, output: Path, order: Order) -> Plan:
    """Refuse what may not be restored, on the record, before a key is asked for; return the plan.

    Raises:
        PolicyRefused: no right to restore, or the purpose does not allow it.
        IntegrityError: the ledger does not verify. InvalidRequest: there is no project.
    """
    if gate.ledger is None:
        raise InvalidRequest("a restore needs a project, whose ledger records it: run `sfumato init`")
    plan = _plan(output, order)
    if gate.policy is not None and not gate.policy.purposes:
        gate.refuse(plan, PolicyRefused(NO_PURPOSE, rule="purposes"))
    empty = gate.ask(order.purpose, ())
    gate.check(replace(plan, consent=empty.evidence if empty is not None else None))
    verify(gate.ledger)
    return plan


def the_one(room: Room, output: Path) -> Sealed:
    """Open the originals of an output.

    Raises:
        InvalidRequest: two sources gave this output, byte for byte; nobody can say which is meant.
    """
    found = room.find(output)
    if len(found) > 1:
        raise InvalidRequest(
            f"{len(found)} sources gave exactly this output, and {output.name} may be of any: move all but "
            f"one of these out of {room.folder}: {', '.join(path.name for path in found)}"
        )
    return room.open(found[0])


def chosen_of(sealed: Sealed, asked: Sequence[int]) -> tuple[int, ...]:
    """Return the tracks that are meant.

    Raises:
        InvalidRequest: one is not sealed, or was destroyed.
    """
    known = sealed.tracks
    for track in asked:
        if track not in known:
            raise InvalidRequest(
                f"no track {track} is sealed here, or it was destroyed; there are: "
                f"{', '.join(map(str, known)) or 'none'}. `sfumato seal show OUT` lists them"
            )
    return tuple(dict.fromkeys(asked)) or tuple(known)


def plan_to_end(output: str, tracks: Sequence[int]) -> Plan:
    """Return the plan of destroying sealed originals: like an erasure, it needs no purpose."""
    which = f"of {len(tracks)} tracks" if tracks else "of all tracks"
    parameters: dict[str, Any] = {"output": output, "tracks": list(tracks)}
    return Plan(
        action="erase",
        mechanism="destruction of sealed originals",
        guarantee="heuristic",
        statement=f"the keys {which} were overwritten and removed; nobody can restore what they sealed",
        limits=(
            "copies of the key folder made before, such as backups, still hold the key: destroy them too",
            "files restored before, and the sources themselves, are not touched",
        ),
        parameters=parameters,
        purpose="right to erasure",
    )


def end(room: Room, gate: Gate, output: Path, tracks: Sequence[int] = ()) -> Receipt:
    """Destroy the sealed originals of an output, or some tracks of them, for ever; recorded.

    Raises:
        PolicyRefused: no right to erase.
        IntegrityError: nothing is sealed for this output, or the file was changed.
        InvalidRequest: no such track.
    """
    gate.actor.require("erase")
    found = room.find(output)
    if tracks:
        chosen_of(the_one(room, output), tracks)
    with gate.open(plan_to_end(sha256_of(output), tracks)) as permit:
        permit.releasing()
        for path in found:
            if tracks:
                room.end_tracks(path, tracks)
            else:
                room.end(path)
        return permit.settle(facts={"files": len(found)})


def _plan(output: Path, order: Order) -> Plan:
    return Plan(
        action="restore",
        mechanism="restore of sealed originals",
        guarantee="heuristic",
        statement=STATEMENT,
        limits=LIMITS,
        parameters={
            "output": sha256_of(output),
            "tracks": list(order.tracks),
            "reason": order.reason.strip(),
            "exact": order.exact,
        },
        purpose=order.purpose,
    )


def _with_consent(gate: Gate, sealed: Sealed, plan: Plan) -> Plan:
    """Return the plan with what the consent register says of the people whom the file is about."""
    decision: Decision | None = gate.ask(plan.purpose, sealed.table["subjects"])
    if decision is None:
        return plan
    if decision.withdrawn:
        refusal = PolicyRefused(
            f"the purpose {plan.purpose!r} rests on consent, and somebody whom the file is about does not "
            "agree to it. Name another purpose, if the law gives one",
            rule=f"purposes.{plan.purpose}.lawful_basis",
        )
        gate.refuse(replace(plan, consent=decision.evidence), refusal)
    return replace(plan, consent=decision.evidence)
