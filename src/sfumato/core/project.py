"""A project: a folder with `sfumato.toml` and `.sfumato/`."""

from __future__ import annotations

import importlib
from functools import cached_property
from pathlib import Path
from typing import Any

import platformdirs

from sfumato.core.anchor import Anchor, FileAnchor
from sfumato.core.book import SCHEMES, Entry, open_book, public_place
from sfumato.core.consent import Register
from sfumato.core.entropy import SYSTEM, Entropy
from sfumato.core.errors import InvalidRequest, LedgerRolledBack, LedgerTampered, PolicyError, PolicyRefused
from sfumato.core.files import digest_of, write_whole
from sfumato.core.gate import Gate
from sfumato.core.identity import Actor, local_actor
from sfumato.core.ledger import Ledger, is_id
from sfumato.core.plugins import need
from sfumato.core.policy import FILE_NAME, LedgerSection, Policy
from sfumato.core.raising import declare_roles
from sfumato.core.tokens import Tokens

FOLDER = ".sfumato"
LEDGER = "ledger.db"

TEMPLATE = """\
# The privacy policy of this project. `sfumato` finds it from any folder below.
# Unknown keys are refused, so that a typo cannot weaken it.

[project]
name = {name}

# What may the data be used for? Once a purpose is declared, every release must name one.
# [purposes.traffic-planning]
# description = "How many people pass where, by hour"
# lawful_basis = "public task"
# actions = ["redact", "query"]

# Whose data is it, and how much privacy loss may they ever suffer here? It never comes back.
# [populations.residents]
# unit = "person"
# epsilon = 1
# delta = 1e-6

# Who may do what? Without this section, whoever can open the project is its owner. See `sfumato roles`.
# [roles]
# owner = ["maria", "jan"]
# analyst = ["eva"]

[redact]
hide = ["face"]
cover = "fill"
audio = "copy"
"""


class Project:
    """A project on disk: its policy, its ledger and its gate.

    >>> import tempfile
    >>> project = Project.init(Path(tempfile.mkdtemp()), name="demo")
    >>> project.policy.project.name
    'demo'
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    @classmethod
    def find(cls, start: Path | None = None) -> Project | None:
        """Return the project of a folder: the nearest `sfumato.toml` upwards, like git; None without one.

        Raises:
            PolicyError: a ledger without its policy was found first.
        """
        folder = (start or Path.cwd()).resolve()
        for candidate in (folder, *folder.parents):
            if (candidate / FILE_NAME).is_file():
                return cls(candidate)
            if (candidate / FOLDER / LEDGER).is_file():
                raise PolicyError(
                    f"{candidate} has a ledger and no {FILE_NAME}: without its policy nothing is released "
                    "from there. Put the policy back."
                )
        return None

    @classmethod
    def init(cls, root: Path, *, name: str = "", forget: bool = False) -> Project:
        """Start a project in a folder: write a commented policy and an empty ledger.

        Args:
            forget: the folder had a ledger before, which is gone, or lies inside another project; start a
                ledger of its own, without what the other charged.

        Raises:
            InvalidRequest: the folder already is a project, had one before, lies in one, or is no folder.
        """
        if root.exists() and not root.is_dir():
            raise InvalidRequest(f"{root} is not a folder")
        if (root / FILE_NAME).exists() or (root / FOLDER).exists():
            raise InvalidRequest(
                f"{root} is a project already: edit {root / FILE_NAME} to change it. "
                "A project's ledger is never replaced."
            )
        if not forget and (around := cls.find(root.parent)) is not None:
            raise InvalidRequest(
                f"{root} lies in the project {around.root}, whose policy and ledger cover it. A ledger of "
                "its own would give the same people a second budget; if they are others: sfumato init "
                "--new-ledger."
            )
        memory = _memory(root)
        if memory.exists() and not forget:
            raise InvalidRequest(
                f"{root.resolve()} had a ledger before ({memory.read_text().strip()}), and it is gone. If it "
                "was lost, restore it. To start anew, forgetting what it charged: sfumato init --new-ledger."
            )
        memory.unlink(missing_ok=True)
        memory.with_suffix(".anchors").unlink(missing_ok=True)
        _consent_memory(root).unlink(missing_ok=True)
        root.mkdir(parents=True, exist_ok=True)
        import tomli_w

        spelled = tomli_w.dumps({"name": name or root.resolve().name or "project"}).split("=", 1)[1].strip()
        source = TEMPLATE.format(name=spelled)
        Policy.parse(source)
        _make_private(root / FOLDER)
        Ledger(root / FOLDER / LEDGER, create=True).close()
        write_whole(root / FILE_NAME, source)
        project = cls(root)
        project.ledger  # noqa: B018  opening it writes the first anchor
        return project

    @cached_property
    def policy(self) -> Policy:
        """The policy, read and checked."""
        return Policy.read(self.root / FILE_NAME)

    @property
    def receipts(self) -> Path:
        """The folder that keeps a copy of every receipt."""
        return self.root / FOLDER / "receipts"

    @cached_property
    def ledger(self) -> Ledger:
        """The ledger, with its anchor; the policy's populations and shares are opened in it.

        Raises:
            PolicyRefused: the policy asks for a raise, or changes a share that was opened.
            IntegrityError: the book is missing, was edited, or is older than its anchor.
        """
        ledger = self.book()
        if self.policy.roles is not None:
            declare_roles(ledger)
        for name, population in self.policy.populations.items():
            ledger.open_population(
                name,
                epsilon=population.epsilon,
                delta=population.delta,
                unit=population.unit,
                relation=population.relation,
                blocks=population.blocks,
            )
            if not population.shares and ledger.shares(name):
                continue  # the share "all" was opened with the budget of its day, and is fixed since
            for share, terms in population.opened_shares().items():
                ledger.open_share(name, share, kind=terms.kind, epsilon=terms.epsilon, delta=terms.delta)
        return ledger

    def book(self) -> Ledger:
        """Open the ledger as it is, without applying the policy (to look at it, or to raise a budget)."""
        return Ledger(self.where, self.anchor(self.where))

    @property
    def where(self) -> str:
        """Where the book is: a PostgreSQL URL, or a file of the project."""
        return self._settings.url or str(self.root / FOLDER / LEDGER)

    def gate(self, *, entropy: Entropy = SYSTEM, actor: Actor | None = None) -> Gate:
        """Return the project's gate, for whoever runs this process or for the holder of a token.

        Raises:
            PolicyRefused: roles were declared once, and the policy has none any more.
        """
        self.keep_roles()
        if not (self.root / FOLDER).exists():  # a second machine, which has the policy and a ledger's URL
            _make_private(self.root / FOLDER)
        return Gate(
            self.policy,
            self.ledger,
            receipts=self.receipts,
            entropy=entropy,
            actor=actor or self.actor,
            consent=lambda: self.consent,
        )

    def training(self, settings: Any = None, **asked: Any) -> Any:
        """Charge a private training run and return it (`sfumato.training.TrainingRun`), or take one up again.

        >>> with project.training(epsilon=3, delta="1e-5", rate="0.01", ...) as run:  # doctest: +SKIP
        ...     private = sfumato.training.private(model, loss, optimizer=optimizer, run=run)

        Args:
            settings: `sfumato.training.TrainingSettings`, or its values as keywords; further keywords are
                `checkpoint`, `resume` and `on_step`: see `sfumato.training.run.open_run`.

        Raises:
            MissingExtra: PyTorch is not installed.
            PolicyRefused, BudgetSpent, IntegrityError: nothing was charged.
        """
        need("private training", ("torch", "safetensors"), "training")
        return importlib.import_module("sfumato.training.run").open_run(self, settings, **asked)

    def questions(self, purpose: str = "", **asked: Any) -> Any:
        """Return questions to this project's tables, for a purpose (`sfumato.queries.Questions`).

        >>> ask = project.questions("traffic-planning")  # doctest: +SKIP
        >>> ask.run("SELECT junction, COUNT(*) FROM flow GROUP BY junction", epsilon=0.5)  # doctest: +SKIP

        Args:
            purpose: of the policy; empty: the only one that allows questions.
            asked: `access`, `engine` and `gate`: see `sfumato.queries.api.Questions`.

        Raises:
            MissingExtra: what answers questions is not installed.
            PolicyRefused: no purpose allows questions, or several do and none was named.
        """
        need("a private query", ("duckdb", "ibis", "pyarrow", "sqlglot"), "queries")
        return importlib.import_module("sfumato.queries.api").Questions(self, purpose=purpose, **asked)

    def keep_roles(self) -> None:
        """Refuse a policy that lost its [roles]: everybody would be an owner, and nobody would be named.

        Raises:
            PolicyRefused: the ledger knows that roles were declared.
        """
        there = self.where.startswith(SCHEMES) or Path(self.where).exists()
        if self.policy.roles is not None or not there:
            return
        book = open_book(self.where)
        try:
            declared = book.find("roles", "")
        finally:
            book.close()
        if declared is not None:
            raise PolicyRefused(
                f"roles were declared in this project (row {declared.seq} of the ledger), and {FILE_NAME} "
                "has none any more, which would make everybody an owner: put [roles] back. With one entry, "
                'owner = ["uid:..."], it names the one person who is left.',
                rule="roles",
            )

    @cached_property
    def actor(self) -> Actor:
        """Who runs this process, with the role that the policy gives them.

        Raises:
            PolicyRefused: roles were declared once, and the policy has none any more.
        """
        self.keep_roles()
        return local_actor(self.policy, self.root / FOLDER)

    @cached_property
    def consent(self) -> Register:
        """The consent register, by pseudonyms of `sfumato.data.people`; it needs no key.

        Raises:
            IntegrityError: it was edited, is older than its anchor, is gone, or is another one.
        """
        folder, memory = self.root / FOLDER, _consent_memory(self.root)
        path = folder / "consent.db"
        if memory.exists() and not path.exists():
            raise LedgerRolledBack(
                f"the consent register {path} is gone, and with it every withdrawal: restore it. If it is "
                "lost for good, ask everybody again before importing old files; to start an empty one, "
                f"remove {memory}."
            )
        register = Register(
            path,
            anchor=lambda identity: FileAnchor(_state() / "anchors" / f"consent-{identity}.heads"),
            actor=self.actor,
        )
        if not memory.exists():
            write_whole(memory, register.id)
        elif memory.read_text().strip() != register.id:
            register.close()
            raise LedgerTampered(
                f"{path} is another consent register than this folder had before, and may lack withdrawals: "
                f"restore the one that was. If it was replaced on purpose, remove {memory}."
            )
        return register

    @property
    def tokens(self) -> Tokens:
        """The tokens of this project."""
        path = self.root / FOLDER
        return Tokens(path / "tokens.json", _identity(self.where), actor=self.actor)

    def close(self) -> None:
        """Close the files that were opened."""
        for name in ("ledger", "consent"):
            if (opened := self.__dict__.pop(name, None)) is not None:
                opened.close()

    @property
    def _settings(self) -> LedgerSection:
        try:
            return self.policy.ledger
        except PolicyError:
            return LedgerSection()  # a broken policy must not keep anyone from verifying the book

    def anchor(self, where: str) -> Anchor:
        """Return what remembers the newest head of the book there: a file, and the policy's witness."""
        settings = self._settings
        if settings.anchor is None or settings.witness is not None:
            first = _first(where)
            identity = _name(first)
        if settings.anchor is not None:
            file = FileAnchor(self.root / settings.anchor)
            _remember_file(_memory(self.root).with_suffix(".anchors"), where, file)
        else:
            file = FileAnchor(_state() / "anchors" / f"{identity}.heads")
            _remember(_memory(self.root), first, where, file)
        if settings.witness is None:
            return file
        from sfumato.core.remote_anchor import Anchors, RemoteAnchor

        witness = RemoteAnchor(settings.witness, identity, required=settings.witness_required)
        return Anchors(file, witness)


def _make_private(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    write_whole(folder / ".gitignore", "*\n")


def _state() -> Path:
    return platformdirs.user_state_path("sfumato")


def _memory(root: Path) -> Path:
    """Return where it is remembered which ledger a folder has."""
    return _state() / "projects" / digest_of(str(root.resolve()))[:32]


def _consent_memory(root: Path) -> Path:
    """Return where it is remembered which consent register a folder has."""
    return _memory(root).with_suffix(".consent")


def _identity(where: str) -> str:
    """Return the ledger's own name, from its first row."""
    return _name(_first(where))


def _name(first: Entry) -> str:
    return str(first.body["ledger"])


def _first(where: str) -> Entry:
    book = open_book(where)
    try:
        first = book.get(1)
    finally:
        book.close()
    if first is None or not is_id(str(first.body.get("ledger", ""))):
        raise LedgerTampered(f"the first row of {public_place(where)} does not open a ledger")
    return first


def _remember(memory: Path, first: Entry, where: str, anchor: FileAnchor) -> None:
    """Notice a ledger that was replaced by a new one, with a fresh budget, and an anchor that was removed."""
    identity, anchored = _name(first), anchor.newest() is not None
    if not memory.exists():
        if not anchored:
            anchor.advance(first.head)  # before the memory: from then on an anchor without a head is odd
        write_whole(memory, identity)
    elif (known := memory.read_text().strip()) != identity:
        raise LedgerTampered(
            f"{public_place(where)} is ledger {identity}, and this folder had ledger {known} before: a new "
            "book was put in place of the old one, and what was charged would be forgotten. Restore the old "
            f"book; if this folder was started anew on purpose, remove {memory}."
        )
    elif not anchored:
        raise LedgerTampered(
            f"the anchor {anchor.path} is gone or empty, and this folder's ledger had one: nobody can "
            "say whether an older copy of the book was put in place. Restore it from a backup; or compare "
            f"the newest row with the newest receipts and, if none is missing, remove {memory}."
        )


def _remember_file(memory: Path, where: str, anchor: FileAnchor) -> None:
    """Notice an anchor of the policy that was there and is removed: it is not made again in silence."""
    name = str(anchor.path.resolve())
    known = memory.read_text(encoding="utf-8").splitlines() if memory.exists() else []
    anchored = anchor.newest() is not None
    if name in known:
        if not anchored:
            raise LedgerTampered(
                f"the anchor {anchor.path} ([ledger] anchor in {FILE_NAME}) is gone or empty, and it was "
                "there before: nobody can say whether an older copy of the book was put in place. Restore "
                "it; or compare the newest row with the newest receipts and, if none is missing, remove its "
                f"line from {memory}."
            )
        return
    if not anchored:
        anchor.advance(_first(where).head)  # before the memory: from then on an empty anchor is odd
    write_whole(memory, "".join(f"{line}\n" for line in [*known, name]))


def gate_here(start: Path | None = None) -> Gate:
    """Return the gate of the project that a folder lies in; outside any, one that records nothing."""
    project = Project.find(start)
    return project.gate() if project is not None else Gate()
