"""Image crops of the evaluation protocols: only pixels inside the crop are scored."""

Crop = tuple[slice, slice]
"""Rows and columns."""

BENCHMARK = (352, 1216)
"""Rows and columns of KITTI's depth benchmark."""


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


def eigen_crop(shape: tuple[int, int]) -> Crop:
    """KITTI crop of Eigen et al. (2014): rows 124 to 342 and columns 44 to 1197 of 375x1242."""
    rows, columns = shape
    return slice(int(0.3324324 * rows), int(0.91351351 * rows)), slice(int(0.0359477 * columns), int(0.96405229 * columns))


def benchmark_crop(shape: tuple[int, int]) -> Crop:
    """KITTI's depth benchmark (Uhrig et al. 2017): :data:`BENCHMARK` pixels, in the middle of the lower edge."""
    (rows, columns), (height, width) = shape, BENCHMARK
    left = (columns - width) // 2
    return slice(rows - height, rows), slice(left, left + width)


IN_USE = {
    "KITTI's benchmark crop": benchmark_crop,
    "the crop of Garg et al.": garg_crop,
    "the crop of Eigen et al.": eigen_crop,
    "ManyDepth's crop of Cityscapes": cityscapes_crop,
}


def named(size: tuple[int, int], whole: tuple[int, int]) -> dict[str, Crop]:
    """Those of :data:`IN_USE` that cut images of the size ``whole`` to ``size``, both (rows, columns)."""
    found = {} if size == whole else {name: crop_of(whole) for name, crop_of in IN_USE.items()}
    lengths = {name: tuple(edges.stop - max(edges.start, 0) for edges in region) for name, region in found.items()}
    return {name: region for name, region in found.items() if lengths[name] == size}
