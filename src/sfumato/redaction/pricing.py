"""What a cover that draws noise costs, whose budget pays, and what its guarantee says."""

from __future__ import annotations

from dataclasses import replace

from sfumato.core.errors import InvalidRequest, PolicyRefused, UnknownName
from sfumato.core.event import PureDP
from sfumato.core.gate import Plan
from sfumato.core.numbers import text
from sfumato.core.policy import FILE_NAME, Policy, Population
from sfumato.redaction.covers import Cover
from sfumato.redaction.covers.dp_pixelate import PIXELS, DpPixelate

#: A cell of so many pixels is what the expected noise is told for.
EXAMPLE = 400


def fitted(cover: Cover, policy: Policy | None) -> Cover:
    """Return a cover with the population that pays for it; one that draws no noise as it is.

    Raises:
        PolicyRefused: the policy declares no population of so many pixels.
        UnknownName: no such population or share.
        InvalidRequest: several would fit.
    """
    if not isinstance(cover, DpPixelate):
        return cover
    if policy is None:
        raise PolicyRefused(
            "dp-pixelate spends a privacy budget, and there is no project here to charge. Run `sfumato init` "
            f"in the folder of your data, and declare in {FILE_NAME}: {_declaration(cover.pixels or PIXELS)}",
            rule="populations",
        )
    name, population = _population(cover, policy)
    shares = list(population.opened_shares())
    if cover.share and cover.share not in shares:
        raise UnknownName(f"share of {name}", cover.share, shares)
    if not cover.share and len(shares) > 1:
        raise InvalidRequest(
            f"the population {name!r} has the shares {', '.join(shares)}: say which pays, by --cover-option "
            f"share={shares[0]}"
        )
    share = cover.share or shares[0]
    return replace(cover, pixels=population.pixels, population=name, share=share)


def _population(cover: DpPixelate, policy: Policy) -> tuple[str, Population]:
    """Return the population whose unit is that of a cover."""
    if cover.population and cover.population not in policy.populations:
        raise UnknownName("population", cover.population, policy.populations)
    wanted = cover.pixels or PIXELS
    fit = {
        name: one
        for name, one in policy.populations.items()
        if one.pixels and cover.pixels in (0, one.pixels) and cover.population in ("", name)
    }
    if not fit:
        named = f"{cover.population!r} is not of" if cover.population else "there is none of"
        raise PolicyRefused(
            f"dp-pixelate is charged to a population whose unit is pixels, and {named} {wanted} pixels. The "
            f"rule: populations in {FILE_NAME}. Declare one: {_declaration(wanted)}",
            rule="populations",
        )
    if len(fit) > 1:
        raise InvalidRequest(
            f"the populations {', '.join(fit)} could pay for dp-pixelate: say which, by --cover-option "
            f"population={next(iter(fit))}"
        )
    return next(iter(fit.items()))


def _declaration(pixels: int) -> str:
    return (
        f'[populations.street] with unit = "{pixels} pixels", relation = "replace-one", epsilon = 4; and '
        'under [redact] cover = "dp-pixelate"'
    )


def priced(plan: Plan, cover: DpPixelate) -> Plan:
    """Return the plan of a redaction with its cost, and with what is proven of it and what is not."""
    statement = (
        f"Proven, given the regions: by 'dp-pixelate' the whole run is {text(cover.epsilon)}-differentially "
        f"private. Neighbours (replace-one) are inputs with the same regions and the same pixels outside "
        f"them that differ in at most {cover.pixels} pixels, counted over all files, inside the regions of "
        "the frames that grids are taken from; the inside of regions in other frames is not used at all. "
        f"Not proven: {plan.statement}"
    )
    limits = (
        "Finding is a filter without a proof, and the place, size and time of regions, and how many there "
        "are, are not protected: neighbours have the same.",
        f"A face has more than {cover.pixels} pixels: what all of it shows is protected less, by epsilon for "
        f"every {cover.pixels} of its pixels. A recogniser trained on such mosaics can name people; 'fill' "
        "leaves nothing.",
        "One thing in several files, or in several tracks of a video, has as many grids, to be averaged.",
        *plan.limits,
    )
    return replace(
        plan,
        guarantee="proven",
        statement=statement,
        limits=limits,
        event=PureDP(cover.epsilon),
        population=cover.population,
        share=cover.share,
    )


def expected(cover: DpPixelate) -> str:
    """Return what the noise will look like, in one sentence: known before a file is read."""
    grey, colour, tint = (cover.scale(count, index) for count, index in ((1, 0), (3, 0), (3, 1)))
    paid = f", charged to {cover.population}/{cover.share}" if cover.population else ""
    return (
        f"dp-pixelate: epsilon {text(cover.epsilon)} for {cover.pixels} pixels{paid}; a cell of {EXAMPLE} "
        f"pixels is off by {float(colour / EXAMPLE):.0f} of 255 levels of brightness on average "
        f"({float(grey / EXAMPLE):.0f} in a grey picture), and the colour of a region with "
        f"{10 * EXAMPLE} colour samples by {float(tint / EXAMPLE / 10):.0f}"
    )
