"""A version without those who do not agree to a purpose.

It is for that purpose alone and stands beside the line of versions, as "2w1" of version 2: for every other
purpose the people are still there, and where one of them agrees again, later plans start from version 2.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from sfumato.core.consent import Evidence
from sfumato.data.catalogue import Catalogue
from sfumato.data.contents import staying
from sfumato.data.lineage import facts_of, populations_of
from sfumato.data.store import Store
from sfumato.data.version import Version

HOW = "withdrawn"


def agreed(
    catalogue: Catalogue, store: Store, version: Version, leaving: Collection[str], evidence: Evidence
) -> Version:
    """Return a version without some people; while the register stays as it is, the same one again.

    Guarantee (heuristic):
        No item and no row of it is about a person in `leaving`. Perhaps it holds nobody: to refuse that would
        tell of everybody else. Its lineage says that people left, and for which purpose.

    Args:
        leaving: pseudonyms of people in the version.
        evidence: for which purpose the register was asked, and how far it went: versions follow from that,
            and not from whether somebody in them does not agree.
    """
    purpose = evidence.purpose
    mark = (purpose, str(evidence.seq))
    if version.facts.agreed == mark:
        return version
    for one in catalogue.versions(version.dataset, cuts=True):
        made_here = one.parents == (version.hash,) and one.facts.agreed == mark
        if made_here and catalogue.retired(one) is None:
            return one
    with catalogue.claim(version.dataset, cut_of=version.label) as label:
        items = staying(store, version, label, leaving)
        facts = replace(
            facts_of([version], items, HOW), populations=populations_of(catalogue, version), agreed=mark
        )
        return catalogue.add(version.dataset, label, items, facts, [version])
