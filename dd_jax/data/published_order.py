"""Check that test frames have the published order, which files without frame names rely on.

Depth of a whole split is often stored without names, as one array or as numbered files: ``disps_eigen_split.npy`` and
``gt_depths.npz`` of Monodepth2 and its successors, ManyDepth's predictions and depths of Cityscapes. Entry i belongs to line i
of the published list. Without a list, this library derives the frames from rules: the same set in another order. Every entry
would then be paired with a wrong frame, visible in the scores only.
"""

from collections.abc import Sequence

from dd_jax.config import ConfigError
from dd_jax.data.cityscapes import splits
from dd_jax.data.kitti.split_tables import KNOWN, TEST_ORDERS
from dd_jax.data.splits import list_digest

CITYSCAPES = "cityscapes/test_files.txt"

PUBLISHED = {(KNOWN[name].lines, KNOWN[name].digest): (name, order) for name, order in TEST_ORDERS.items()} | {
    (1525, splits.PUBLISHED[1525][0]): (CITYSCAPES, splits.TEST_ORDER)
}
"""Count and digest of the set of a published test list -> its path below ``splits``, and the start of its digest in its order."""


def other_order(names: Sequence[str]) -> str:
    """The published list with the lines ``names`` in another order; "" if the order is the same or no list has these lines."""
    if len(names) not in {count for count, _ in PUBLISHED}:
        return ""
    name, order = PUBLISHED.get((len(names), list_digest(names)), ("", ""))
    return name if name and not list_digest(names, ordered=True).startswith(order) else ""


def refuse_other(out_of_order: str, what: str, instead: str) -> None:
    """Refuses data without frame names if the frames are ordered differently from the list ``out_of_order`` ("" = same order).

    Args:
      what: the data without names; the message begins with it.
      instead: a remedy other than the list.

    Raises:
      ConfigError: ``out_of_order`` is not empty.
    """
    if out_of_order:
        raise ConfigError(
            f"{what} follows the lines of the published {out_of_order}, but the frames here have another order: copy that list "
            "from the splits folder of the public ManyDepth repository to ROOT/splits, or name its folder with "
            f"--config.data.split_dir (and rebuild a store with it); or {instead}"
        )
