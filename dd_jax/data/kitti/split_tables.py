"""Tables from which ``splits`` derives KITTI's published splits, and digests of these.

The lists themselves are in the public repositories of Monodepth2 and ManyDepth (folder ``splits``).
"""

from typing import NamedTuple


class EigenTest(NamedTuple):
    """Frames of one drive in the Eigen test split (Eigen et al., 2014), left camera."""

    date: str
    number: int
    step: int
    frames: str  # ranges with this step, ends included
    skipped: str = ""  # frames of the ranges that are not in the list
    bare: str = ""  # frames without annotated depth, which the benchmark's list leaves out


class EigenTrain(NamedTuple):
    """One drive of the Eigen training split: its length and static frames (Zhou et al., 2017)."""

    date: str
    number: int
    length: int
    static: str = ""


class Known(NamedTuple):
    """A published list: number of lines, and SHA-256 of their set."""

    lines: int
    digest: str


EIGEN_TEST = (
    EigenTest("2011_09_26", 2, 3, "0-75", "66", "0 3 72 75"),
    EigenTest("2011_09_26", 9, 16, "0-176 196-388", "", "0"),
    EigenTest("2011_09_26", 13, 5, "0-140", "15 25 55 75", "0 140"),
    EigenTest("2011_09_26", 20, 3, "0-84", "24 30 39 81", "0 3 84"),
    EigenTest("2011_09_26", 23, 18, "18-468", "234"),
    EigenTest("2011_09_26", 27, 7, "0-182", "105 154", "0"),
    EigenTest("2011_09_26", 29, 14, "0-196 268-408", "282", "0"),
    EigenTest("2011_09_26", 36, 32, "0-800", "736", "0 800"),
    EigenTest("2011_09_26", 46, 5, "0-120", "", "0 120"),
    EigenTest("2011_09_26", 48, 1, "0-21", "", "0-4 17-21"),
    EigenTest("2011_09_26", 52, 2, "0-52", "24 34", "0 2 4"),
    EigenTest("2011_09_26", 56, 11, "11-286", "132"),
    EigenTest("2011_09_26", 59, 14, "0-238 274-372", "168", "0 372"),
    EigenTest("2011_09_26", 64, 22, "0-550", "132", "0"),
    EigenTest("2011_09_26", 84, 13, "49-374", "166"),
    EigenTest("2011_09_26", 86, 27, "7-682", "547"),
    EigenTest("2011_09_26", 93, 16, "0-256 305-417", "", "0"),
    EigenTest("2011_09_26", 96, 19, "0-456", "", "0"),
    EigenTest("2011_09_26", 101, 34, "80-930", "250"),
    EigenTest("2011_09_26", 106, 8, "15 35-219"),
    EigenTest("2011_09_26", 117, 26, "0-650", "520", "0"),
    EigenTest("2011_09_28", 2, 3, "0-90", "15 27 42 66 69 75", "0 3"),
    EigenTest("2011_09_29", 71, 36, "0-612 735-951 1054", "843", "0 1054"),
    EigenTest("2011_09_30", 16, 11, "0-275", "99", "0 275"),
    EigenTest("2011_09_30", 18, 107, "0-2247 2419-2740", "321", "0"),
    EigenTest("2011_09_30", 27, 41, "0-656 753-1081", "999", "0"),
    EigenTest("2011_10_03", 27, 181, "0-543 734-4535", "2182", "0"),
    EigenTest("2011_10_03", 47, 32, "0-800", "256", "0"),
)

EIGEN_TRAIN = (
    EigenTrain("2011_09_26", 1, 108),
    EigenTrain("2011_09_26", 5, 154),
    EigenTrain("2011_09_26", 11, 233, "117-134 136-231"),
    EigenTrain("2011_09_26", 14, 314),
    EigenTrain("2011_09_26", 15, 297),
    EigenTrain("2011_09_26", 17, 114, "1 4-37 40-112"),
    EigenTrain("2011_09_26", 18, 270, "1-2 6-37 43-57 64-69 82-86 89 94-97 103-186 189-192 194"),
    EigenTrain("2011_09_26", 19, 481, "404-458 471-472"),
    EigenTrain("2011_09_26", 22, 800, "1-4 575-576"),
    EigenTrain("2011_09_26", 28, 430),
    EigenTrain("2011_09_26", 32, 390),
    EigenTrain("2011_09_26", 35, 131),
    EigenTrain("2011_09_26", 39, 395),
    EigenTrain("2011_09_26", 51, 438, "191-227 233-246 256-280 287-296 305-309 317-319 325-361 371-373"),
    EigenTrain("2011_09_26", 57, 361, "1-289 292-298"),
    EigenTrain("2011_09_26", 60, 78, "1-76"),
    EigenTrain("2011_09_26", 61, 703),
    EigenTrain("2011_09_26", 70, 420),
    EigenTrain("2011_09_26", 79, 100, "75-82 84-98"),
    EigenTrain("2011_09_26", 87, 729, "1-2 661 668-669 680-681"),
    EigenTrain("2011_09_26", 91, 340),
    EigenTrain("2011_09_26", 95, 268),
    EigenTrain("2011_09_26", 104, 312),
    EigenTrain("2011_09_26", 113, 87, "30"),
    EigenTrain("2011_09_28", 1, 106, "1-14"),
    EigenTrain("2011_09_29", 4, 339, "317-318 321-323 325-337"),
    EigenTrain("2011_09_29", 26, 158, "23-33 36-156"),
    EigenTrain("2011_09_30", 20, 1104),
    EigenTrain("2011_09_30", 28, 5177, "1130 5103-5105 5108-5117"),
    EigenTrain("2011_09_30", 33, 1594),
    EigenTrain("2011_09_30", 34, 1224, "630 1137-1222"),
    EigenTrain("2011_10_03", 34, 4663),
    EigenTrain(
        "2011_10_03", 42, 1170,
        "234 237 266 270-276 278-279 281-295 299-301 306-309 312 314-317 319-321 323 326-327 389 528 533-535 771 812 824-825 "
        "1086 1088-1091 1094 1096-1098 1156",
    ),
)  # fmt: skip

ODOMETRY_TRAIN = (4541, 1101, 4661, 801, 271, 2761, 1101, 1101, 4071)
"""Lengths of the sequences 00 to 08."""

ODOMETRY_TEST = {9: 1590, 10: 1200}
"""Lengths of the test sequences as frame pairs."""

KNOWN = {
    "eigen/test_files.txt": Known(697, "0d101e16e62ccc9c75dd66b8b3a130db159a69249849eac8c2eb4db33d91ed7b"),
    "eigen_benchmark/test_files.txt": Known(652, "048373a901ac64dd09b204f580924777300304f8becaa246c64a7558c5cac2ff"),
    "eigen_zhou/train_files.txt": Known(39810, "ef04937576ba23eed89803713e85389d2c8da60baffc61b289980e2bcc67ef75"),
    "eigen_zhou/val_files.txt": Known(4424, "ba106cbf66eb864b8a23153f4dd2dd0b9e1fe94f95ee35a61037181bc4bd8914"),
    "eigen_full/train_files.txt": Known(45200, "3e781a43c0f433f7eb7809641c2cd3bf5d392186136e9c239f5de29f1063dc68"),
    "eigen_full/val_files.txt": Known(1776, "038a76c9c1e7ce89b56767356ba8d333c3cd8ca34fefbdc1ebcc8a3a59067361"),
    "benchmark/train_files.txt": Known(72084, "8a18f9d55309e78146521badf544d3dcba16b5616618e28e32931b76ef008133"),
    "benchmark/val_files.txt": Known(6060, "cbe4d895ac8ed2ec0bdf5924608fce76397ab762b9d9f6e52ea7cb68ef3086bd"),
    "odom/train_files.txt": Known(36671, "2fee2821d91ac95a5a1e7275c6b8b90940bec164b1a6d38a6826f1b0fd6bf984"),
    "odom/val_files.txt": Known(4075, "57243e88611c414bbfaa44452fb8569e7fe9917ea61f8c527d33fd218a3be57a"),
    "odom/test_files_09.txt": Known(1590, "111ecb111267039f6cd131f90e4299ee244fb494bbb5837a3fa3ac78c916c05a"),
    "odom/test_files_10.txt": Known(1200, "046a0b482b7d189d1bc27daa97c08e8b6c6c5c4bc486311fb580699e6dc9e680"),
}
"""Lines and digest of the published lists, by their path below the repositories' ``splits`` folder.

The digest is of the set: lines ``FOLDER FRAME SIDE`` with the frame as a plain integer, sorted, each ended by a newline.
"""

TEST_ORDERS = {"eigen/test_files.txt": "dd809f3bae6d775f", "eigen_benchmark/test_files.txt": "d56e5e509e6960a0"}
"""Published test lists whose order cannot be derived -> start of the digest of their lines in order."""
