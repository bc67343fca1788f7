"""Writes the measured depth of a KITTI split to one file, so that evaluation needs no laser scans.

    python scripts/export_ground_truth.py --root=KITTI --split=eigen_zhou --out=gt_eigen.npz

Evaluate with ``evaluate.py --checkpoint=RUN --ground_truth=file --ground_truth_file=gt_eigen.npz``. With --objects the file has
the format of the published gt_depths.npz, for other programs. That has an order instead of names: give --split_dir with the
published list.
"""

from pathlib import Path

from dd_jax.config import DataConfig
from dd_jax.data import ground_truth_file
from dd_jax.data.kitti import raw
from dd_jax.runtime import command_line


def main(argv: list[str] | None = None) -> None:
    parser = command_line.Parser(__doc__)
    parser.add_argument("--root", required=True, help="folder of KITTI raw")
    parser.add_argument("--out", required=True, type=Path, help="the .npz file")
    parser.add_argument("--split", default="", choices=("", "eigen_zhou", "eigen_full", "benchmark"), help="'' = your own lists")
    parser.add_argument("--split_dir", default="", help="folder of the lists; default: ROOT/splits")
    parser.add_argument("--part", default="test", choices=("train", "val", "test"))
    parser.add_argument("--kind", default="velodyne", choices=("velodyne", "annotated"))
    parser.add_argument("--objects", action="store_true", help="Monodepth2's format, which needs unpickling")
    flags = parser.parse_args(argv)
    data = DataConfig(root=flags.root, split=flags.split, split_dir=flags.split_dir, masks="none", intrinsics="nominal")
    with command_line.job():
        written = ground_truth_file.export(raw.list_split(data, flags.part), flags.kind, flags.out, flags.objects)
    print(f"{flags.out}: ground truth of {written} frames")


if __name__ == "__main__":
    main()
