"""Image crops of the evaluation protocols: only pixels inside the crop are scored."""

Crop = tuple[slice, slice]
"""Rows and columns."""


def crop(name: str, shape: tuple[int, int]) -> Crop:
    """The crop ``eval.crop`` ("eigen" | "cityscapes" | "none") of an image of (rows, columns) ``shape``."""
    match name:
        case "eigen":
            return garg_crop(shape)
        case "cityscapes":
            return cityscapes_crop(shape)
        case _:
            return slice(None), slice(None)


def garg_crop(shape: tuple[int, int]) -> Crop:
    """KITTI crop of Garg et al. (2016), used with the Eigen split: rows 153 to 371 and columns 44 to 1197 of 375x1242."""
    rows, columns = shape
    return slice(int(0.40810811 * rows), int(0.99189189 * rows)), slice(int(0.03594771 * columns), int(0.96405229 * columns))


def cityscapes_crop(shape: tuple[int, int]) -> Crop:
    """Cityscapes crop of ManyDepth (Watson et al. 2021): rows 256 to 768 and columns 192 to 1856 of 768x2048."""
    rows, columns = shape
    return slice(rows // 3, rows), slice(columns * 3 // 32, columns * 29 // 32)
