"""Every row over its seeds, and compared with its control."""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int

from dd_jax.ablations.plan import Row
from dd_jax.ablations.result import LOOKUPS, PREDICTORS, Result, computed
from dd_jax.ablations.statistics import Estimate, estimate, per_seed, spread
from dd_jax.config import ConfigError

Regions = dict[str, Estimate]


@dataclasses.dataclass(frozen=True)
class Effect:
    """Whether the predictions differ: abs_rel of a drive, mean absolute difference over drives."""

    of_row: float  # between the row and its control, same seed
    of_seed: float | None  # between two seeds of the control; None with one seed
    lookup: Estimate  # the control's gain by the previous frame over another one, all pixels: without it, depth is not matched


@dataclasses.dataclass(frozen=True)
class MovingPixels:
    """Whether a row is better than its control on moving pixels, and because of the lookup frame."""

    difference: Estimate  # abs_rel, with the previous frame
    spread: float | None  # larger standard deviation over seeds of the two rows
    ahead: bool | None  # clearly, and by more than twice the spread; None with one seed or one drive
    without_lookup: Estimate  # the difference without a lookup frame
    vanishes: bool | None  # it is inside the noise without a lookup frame; None with one drive, which has no interval
    by_lookup: Estimate  # the difference with the previous frame minus that without


@dataclasses.dataclass(frozen=True)
class Line:
    """One row over its seeds, compared with its control over the seeds that both have."""

    row: str
    title: str
    control: str | None  # None: the row has none, or its control has no result
    seeds: list[int]
    compared_seeds: list[int]
    drives: int
    scores: dict[str, Regions]  # of PREDICTORS -> region -> abs_rel
    by_seed: dict[str, dict[str, list[float]]]  # the same for every seed
    spreads: dict[str, dict[str, float | None]]  # standard deviation over seeds
    gains: dict[str, Regions]  # "none" | "other" -> region -> 1 - abs_rel with the previous frame / abs_rel with that
    differences: dict[str, Regions]  # of PREDICTORS -> region -> abs_rel minus the control's
    effect: Effect | None
    moving: MovingPixels | None
    step_seconds: float | None
    published: float | None


class Scored:
    """abs_rel of the runs of a row as arrays."""

    def __init__(self, results: Sequence[Result]):
        self.by_seed = {result.seed: result.scores for result in results}
        self.counts = results[0].scores.counts
        self.regions = list(self.counts)

    def images(self, region: str) -> Int[np.ndarray, " drives"]:
        return np.array(list(self.counts[region].values()))

    def errors(self, who: str, region: str, seeds: Sequence[int]) -> Float[np.ndarray, "seeds drives"]:
        """Mean over the images of a drive; drives in the order of ``images``."""
        found = [self.by_seed[seed].abs_rel[who][region] for seed in seeds]
        return np.array([[one[drive] for drive in self.counts[region]] for one in found])


def tabulate(results: Sequence[Result], rows: Mapping[str, Row]) -> list[Line]:
    """One line per row with results, in the order of ``rows``.

    Raises:
      ConfigError: the results cannot be compared: other images, another base, or a setting that the rows do not change.
    """
    require_comparable(results, rows)
    scored = {row: Scored(own) for row in rows if (own := [result for result in results if result.row == row])}
    return [_line(row, rows[row], scored, [result for result in results if result.row == row]) for row in scored]


def require_comparable(results: Sequence[Result], rows: Mapping[str, Row]) -> None:
    """Checks that the results differ only in their rows and seeds.

    Raises:
      ConfigError: they do not; names the first two and the reason.
    """
    for one in results[1:]:
        first = results[0]
        pair = f"the results of {first.row}, seed {first.seed}, and {one.row}, seed {one.seed}, cannot be compared"
        if first.base != one.base:
            raise ConfigError(f"{pair}: they started from different models; run both from the same --base")
        if (first.scores.images, first.scores.counts) != (one.scores.images, one.scores.counts):
            raise ConfigError(f"{pair}: they were evaluated on different test images; run both on the same data")
        changed = {"train.seed", *rows[first.row].changes, *rows[one.row].changes}
        different = [field for field in _differences(first, one) if field not in changed]
        if different:
            raise ConfigError(f"{pair}: {', '.join(different)} differ; run both with the same fields and --steps")


def _differences(first: Result, second: Result) -> list[str]:
    one, other = computed(first.config), computed(second.config)
    sections = [section for section in one if isinstance(one[section], dict)]
    return [f"{s}.{name}" for s in sections for name in one[s] if one[s][name] != other[s][name]]


def _line(row: str, about: Row, scored: Mapping[str, Scored], results: Sequence[Result]) -> Line:
    own, control = scored[row], scored.get(about.control)
    seeds = sorted(own.by_seed)
    common = [seed for seed in seeds if control is not None and seed in control.by_seed]
    by_seed = {
        who: {region: per_seed(own.images(region), own.errors(who, region, seeds)) for region in own.regions}
        for who in PREDICTORS
    }
    differences = {who: _by_region(np.subtract, common, (own, who), (control, who)) for who in PREDICTORS if common}
    seconds = [result.step_seconds for result in results if result.step_seconds is not None]
    return Line(
        row=row,
        title=about.title,
        control=about.control if common else None,
        seeds=seeds,
        compared_seeds=common,
        drives=len(own.counts["all"]),
        scores={who: _by_region(np.asarray, seeds, (own, who)) for who in PREDICTORS},
        by_seed={who: {region: x.tolist() for region, x in regions.items()} for who, regions in by_seed.items()},
        spreads={who: {region: spread(x) for region, x in regions.items()} for who, regions in by_seed.items()},
        gains={lookup: _by_region(_gain, seeds, (own, "previous"), (own, lookup)) for lookup in LOOKUPS if lookup != "previous"},
        differences=differences,
        effect=_effect(own, control, common) if common else None,
        moving=_moving_pixels(own, control, common, differences) if common and "moving" in own.regions else None,
        step_seconds=float(np.median(seconds)) if seconds else None,
        published=about.published,
    )


def _by_region(of: Callable, seeds: Sequence[int], *parts: tuple[Scored, str]) -> Regions:
    """A function ``of`` the errors of rows with predictors, in every region."""
    row = parts[0][0]
    return {
        region: estimate(row.images(region), of, *(side.errors(who, region, seeds) for side, who in parts))
        for region in row.regions
    }


def _effect(own: Scored, control: Scored, seeds: Sequence[int]) -> Effect:
    ours, theirs = (side.errors("previous", "all", seeds) for side in (own, control))
    between = [np.abs(one - other).mean() for one, other in itertools.combinations(theirs, 2)]
    lookup = estimate(own.images("all"), _gain, theirs, control.errors("other", "all", seeds))
    return Effect(float(np.abs(ours - theirs).mean()), float(np.mean(between)) if between else None, lookup)


def _gain(previous: Float[np.ndarray, " n"], other: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    return 1 - previous / other


def _moving_pixels(own: Scored, control: Scored, seeds: Sequence[int], differences: Mapping[str, Regions]) -> MovingPixels:
    with_frame, without = ([side.errors(who, "moving", seeds) for side in (own, control)] for who in ("previous", "none"))
    images = own.images("moving")
    spreads = [spread(per_seed(images, errors)) for errors in with_frame]
    largest = None if None in spreads else max(spreads)
    difference, difference_without = (differences[who]["moving"] for who in ("previous", "none"))
    return MovingPixels(
        difference=difference,
        spread=largest,
        ahead=None if largest is None or difference.low is None else difference.clear and difference.value < -2 * largest,
        without_lookup=difference_without,
        vanishes=None if difference_without.low is None else not difference_without.clear,
        by_lookup=estimate(images, lambda a, b, c, d: (a - b) - (c - d), *with_frame, *without),
    )
