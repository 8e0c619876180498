"""Helps for three laws: records to start from. They are help and no legal advice, and say so on the page."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from sfumato.report.sources import Sources

TO_DO = "to be completed: "

#: Declared category -> categories of California Civil Code 1798.140(v)(1), by letter.
CALIFORNIA: Mapping[str, str] = {
    "identifiers": "A",
    "contact": "AB",
    "demographics": "C",
    "health": "BL",
    "genetic": "EL",
    "biometric": "EL",
    "pictures": "H",
    "location": "G",
    "financial": "BD",
    "internet activity": "F",
    "employment": "I",
    "education": "J",
    "inferences": "K",
}
LETTERS: Mapping[str, str] = {
    "A": "Identifiers",
    "B": "Customer records (names, addresses, medical or financial details)",
    "C": "Characteristics of protected classifications",
    "D": "Commercial information",
    "E": "Biometric information",
    "F": "Internet or other network activity",
    "G": "Geolocation data",
    "H": "Audio, visual and similar information",
    "I": "Professional or employment information",
    "J": "Education information",
    "K": "Inferences that make a profile",
    "L": "Sensitive personal information",
}
#: GDPR, article 9(1).
SPECIAL = ("health", "genetic", "biometric")

#: 45 CFR 164.514(b)(2)(i): letter, identifier, what a column of it may be called, rules that may satisfy it.
IDENTIFIERS: tuple[tuple[str, str, str, str], ...] = (
    ("A", "Names", r"name|surname|forename|vorname|nachname|initials", ""),
    (
        "B",
        "Places smaller than a state (a three-digit postcode may stay where over 20,000 people live)",
        r"address|street|city|town|county|zip|postcode|postal|plz|lat|latitude|lon|lng|longitude|gps|geo\w*",
        "prefix",
    ),
    (
        "C",
        "Dates of the person finer than a year; ages over 89",
        r"date|born|birth\w*|dob|admission|admitted|discharge\w*|death|died|visit\w*|age|time|timestamp|day|month",
        "year band",
    ),
    ("D", "Telephone numbers", r"phone|telephone|tel|mobile|cell", ""),
    ("E", "Fax numbers", r"fax", ""),
    ("F", "E-mail addresses", r"e?mail", ""),
    ("G", "Social security numbers", r"ssn|social|sozialversicherung\w*", ""),
    ("H", "Medical record numbers", r"mrn|record|patient|patientid|case|chart", ""),
    ("I", "Health plan beneficiary numbers", r"beneficiary|insurance|insured|plan|member", ""),
    ("J", "Account numbers", r"account|iban|card", ""),
    ("K", "Certificate and licence numbers", r"licen[cs]e|certificate|passport", ""),
    ("L", "Vehicle identifiers, licence plates", r"vehicle|plate|vin|registration", ""),
    ("M", "Device identifiers and serial numbers", r"device|serial|imei|mac", ""),
    ("N", "Web addresses", r"url|website|link|homepage", ""),
    ("O", "IP addresses", r"ip|ipaddress", ""),
    ("P", "Biometric identifiers", r"finger\w*|voice\w*|iris|retina|biometric\w*|faceprint", ""),
    ("Q", "Full-face photographs and comparable pictures", r"photo|picture|image|portrait", ""),
    ("R", "Any other unique number, characteristic or code", r"id|uid|uuid|code|key|subject|person", ""),
)


def article_30(sources: Sources, data: Mapping[str, Any]) -> dict[str, Any]:
    """Return what GDPR Art. 30(1) asks for, in its order; what the policy does not say is to be completed."""
    policy = sources.policy
    project = policy.project
    activities = [
        {
            "purpose": purpose["name"],
            "description": purpose["description"]
            or f'{TO_DO}[purposes.{purpose["name"]}] description = "..."',
            "basis": purpose["lawful_basis"] or f'{TO_DO}[purposes.{purpose["name"]}] lawful_basis = "..."',
            "subjects": _people(policy.populations, policy.datasets, purpose["datasets"]),
            "categories": _listed(
                (one for name in purpose["datasets"] for one in policy.datasets[name].categories),
                "[datasets.NAME] categories = [...]",
            ),
            "recipients": _listed(
                purpose["recipients"], f"[purposes.{purpose['name']}] recipients = [...], or none"
            ),
            "transfers": purpose["transfers"] or f'{TO_DO}[purposes.{purpose["name"]}] transfers = "none"',
            "erasure": _limits(sources, purpose["datasets"]),
            "from": purpose["from"],
        }
        for purpose in data["purposes"]
    ]
    return {
        "controller": project.controller or f'{TO_DO}[project] controller = "..."',
        "contact": project.contact or f'{TO_DO}[project] contact = "..."',
        "dpo": project.dpo or f'{TO_DO}[project] dpo = "...", where there is one',
        "activities": activities,
        "security": security(sources, data),
        "from": {"policy": "project"},
    }


def security(sources: Sources, data: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the measures that this project shows, each with what shows it; others are to be added."""
    policy = sources.policy
    measures: list[tuple[str, dict[str, Any]]] = [
        (
            "every release is recorded in an append-only ledger whose rows are chained by hashes",
            {"rows": [1, sources.extent.rows]},
        )
    ]
    if data["versions"]:
        measures.append(
            ("people are stored under keyed pseudonyms", {"version": data["versions"][-1]["hash"]})
        )
    if any(section.keep for section in policy.datasets.values()):
        measures.append(("only listed fields enter (data minimisation)", {"policy": "datasets"}))
    if sources.extent.vault:
        measures.append(
            ("stored data are encrypted at rest (AES-256-GCM), by keys of each person", {"vault": "keys"})
        )
    if policy.roles is not None:
        measures.append(("access by role; a larger budget needs two owners", {"policy": "roles"}))
    if data["shares"]:
        measures.append(
            (
                "differentially private releases are held to a budget",
                {"rows": data["shares"][0]["from"]["rows"]},
            )
        )
    if policy.ledger.witness is not None:
        measures.append(("a witness elsewhere remembers the ledger's head", {"policy": "ledger.witness"}))
    return [{"measure": text, "from": source} for text, source in measures]


def california(sources: Sources) -> dict[str, Any]:
    """Return the categories of Cal. Civ. Code 1798.140(v)(1) that the declared data fall under."""
    found: dict[str, list[str]] = {}
    for name, section in sources.policy.datasets.items():
        for category in section.categories:
            for letter in CALIFORNIA[category]:
                found.setdefault(letter, []).append(name)
    undeclared = [one["name"] for one in _undeclared(sources)]
    return {
        "categories": [
            {
                "letter": letter,
                "what": what,
                "datasets": list(dict.fromkeys(found.get(letter, ()))),
                "from": {"policy": "datasets.categories"},
            }
            for letter, what in LETTERS.items()
        ],
        "undeclared": undeclared,
        "sold": "no record of it",
        "shared": "no record of it",
        "from": {"policy": "datasets.categories"},
    }


def hipaa(sources: Sources, data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the 18 identifiers of 45 CFR 164.514(b)(2)(i), and what became of columns named like them."""
    units = {unit["unit"] for unit in data["populations"]} | {
        one.unit for one in sources.policy.populations.values()
    }
    sections = sources.policy.datasets.values()
    health = any("health" in section.categories for section in sections)
    if not health and "patient" not in units:
        return {"applies": False, "why": "", "identifiers": [], "from": {"policy": "datasets.categories"}}
    columns = _columns(sources)
    pictures = any(one.items and not one.facts.rows for one in sources.versions)
    why = "a dataset declares the category health" if health else "a population's unit is the patient"
    return {
        "applies": True,
        "why": why,
        "identifiers": [
            _identifier(letter, what, hint, rules, columns, pictures)
            for letter, what, hint, rules in IDENTIFIERS
        ],
        "from": {"policy": "datasets.keep"},
    }


def _identifier(
    letter: str,
    what: str,
    hint: str,
    rules: str,
    columns: Iterable[tuple[str, str, str, str]],
    pictures: bool,
) -> dict[str, Any]:
    fields = [
        {"dataset": dataset, "field": name, "what": state, "rule": rule}
        for dataset, name, state, rule in columns
        if sounds_like(name, hint) or (letter == "R" and state == "pseudonym")
    ]
    states = {field["what"] for field in fields}
    handled = next(
        (word for word in ("kept", "pseudonym", "generalised", "dropped") if word in states), "not known"
    )
    note = ""
    if handled == "generalised":
        fits = all(f["what"] != "generalised" or f["rule"].split(" ")[0] in rules.split() for f in fields)
        note = (
            "check that it is coarse enough" if fits else "this rule does not satisfy Safe Harbor by itself"
        )
    elif handled == "pseudonym":
        note = "a keyed hash of an identifier is a code derived from it: see 164.514(c)"
    elif handled == "not known":
        note = "no field has such a name; free text and pictures may still hold it"
    if letter == "Q" and pictures:
        handled, note = "kept", "pictures are stored with what they show: redact them"
    return {"letter": letter, "what": what, "handled": handled, "fields": fields, "note": note}


def sounds_like(name: str, hint: str) -> bool:
    """Whether a column's name has one of the hinted words in it.

    >>> sounds_like("dateOfBirth", "birth"), sounds_like("place", "ip")
    (True, False)
    """
    words = re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", name)
    return any(re.fullmatch(hint, word) for word in re.split(r"[\W_]+", words.lower()) if word)


def _columns(sources: Sources) -> list[tuple[str, str, str, str]]:
    """Return (dataset, column, kept | pseudonym | generalised | dropped, rule), each once."""
    found: dict[tuple[str, str], tuple[str, str]] = {}
    for name, section in sources.policy.datasets.items():
        for column in section.keep:
            rule = section.generalise.get(column)
            found[name, column] = ("generalised", str(rule)) if rule else ("kept", "")
        if section.unit and section.unit not in ("file", "folder") and ":" not in section.unit:
            found[name, section.unit] = ("pseudonym", "")
    for one in sources.versions:
        facts, rules = one.facts, dict(one.facts.generalised)
        for column, _ in facts.dropped:
            found.setdefault((one.dataset, column), ("dropped", ""))
        for column in facts.kept:
            # What was stored counts before what the policy says now.
            state = ("generalised", rules[column]) if column in rules else ("kept", "")
            found[one.dataset, column] = ("pseudonym", "") if column == facts.unit else state
    return [(dataset, column, state, rule) for (dataset, column), (state, rule) in found.items()]


def _undeclared(sources: Sources) -> list[dict[str, str]]:
    names = dict.fromkeys([*sources.policy.datasets, *(one.dataset for one in sources.versions)])
    return [
        {"name": name}
        for name in names
        if name not in sources.policy.datasets or not sources.policy.datasets[name].categories
    ]


def _people(populations: Mapping[str, Any], datasets: Mapping[str, Any], names: Iterable[str]) -> list[str]:
    found = dict.fromkeys(datasets[name].population for name in names)
    people = [f"{name} (unit: {populations[name].unit})" for name in found if name in populations]
    return people or [f'{TO_DO}[datasets.NAME] population = "..."']


def _listed(items: Iterable[str], key: str) -> list[str]:
    return list(dict.fromkeys(items)) or [f"{TO_DO}{key}"]


def _limits(sources: Sources, names: Iterable[str]) -> list[str]:
    days = {name: sources.policy.retention.days_of(name) for name in names}
    said = [f"{name}: {count} days" for name, count in days.items() if count is not None]
    unsaid = [name for name, count in days.items() if count is None]
    if unsaid or not said:
        said.append(f"{TO_DO}[retention] days = ..." + (f" (for {', '.join(unsaid)})" if unsaid else ""))
    return said
