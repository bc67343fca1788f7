"""Every command of the README and the documents runs, on small data, with narrow networks and few steps."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from cityscapes_tree import CityscapesTree

from dd_jax.data.synthetic import make

ROOT = Path(__file__).parents[2]
FIRST = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "docs/recipes.md"]
DOCUMENTS = FIRST + [path for path in sorted((ROOT / "docs").glob("*.md")) if path not in FIRST]
"""In the order in which their commands run: the recipes train the runs that other pages use."""

COMMAND = re.compile(r"(?:^|`)((?:python scripts/|(?:make|git|pip|python3) )(?:[^`\n\\]|\\\n)*)", re.MULTILINE)

ELSEWHERE = {
    "git ": "needs a server",
    "pip ": "needs the network",
    "python3 -m venv": "needs the network",
    "make ": "installs packages from the network; test_make_targets_name_existing_files checks the targets",
    "python scripts/make_masks.py": "downloads weights; tests/prepare runs it with a small random network",
    "python scripts/make_prior_depth.py": "likewise",
    "python scripts/import_torch.py --export": "",
    "python scripts/import_torch.py": "needs published weights; tests/checkpoints/test_published.py generates such files",
    "python scripts/train.py --config=configs/dynamic_depth.py:kitti --config.train.init_encoders": "needs ImageNet weights",
    "python scripts/compile_for.py": "takes half an hour; tests/benchmarks/test_compile_for.py compiles for a small topology",
    "python scripts/train.py ...": "is one of two processes; tests/e2e/test_train.py starts both",
    "python scripts/soak.py": "takes hours; tests/benchmarks/test_soak.py",
    "python scripts/benchmark.py --peer": "needs PyTorch and manydepth; tests/benchmarks/test_pytorch_peer.py",
}
"""Beginnings of commands that are not run here -> the reason; an empty reason means: run."""

NETWORKS = "--config.model.width=8 --config.cost_volume.bins=8"
DATA = "--config.data.height=64 --config.data.width=96 --config.data.batch_size=2 --config.data.split="
STEPS = "--config.optim.steps=2 --config.optim.freeze_step=-1 --config.optim.decay_steps=0 --config.train.eval_frames=2"
SMALLER = {
    "make_synthetic": "--preset=tiny",
    "train": f"{DATA} {NETWORKS} {STEPS}",
    "train_stages": "--recipe=configs/recipe.py:tiny/monodepth2 --render=tiny",
    "check_data": DATA,
    "prepare_tfds": DATA,
    "evaluate": DATA,
    "run_ablations": "--rows=many_depth --seeds=1 --steps=2",
    "measure_accelerator": "--tiny --only=device",
    "benchmark": f"{NETWORKS} --config.data.height=64 --config.data.width=96 --repeats=1",
    "export_ground_truth": "--split=",
}
"""Flags appended to the commands of a script."""

KEEPS_OUTPUT = ("make_synthetic", "run_ablations", "import_torch")
"""Scripts that may find their output folder filled; for the others, an earlier command's output is removed."""


def commands():
    """All commands in code blocks, code spans and tables, in order, without duplicates."""
    found = [match.strip() for path in DOCUMENTS for match in COMMAND.findall(path.read_text())]
    return list(dict.fromkeys(" ".join(shlex.split(command.replace("\\\n", " "), comments=True)) for command in found))


def reason_not_run(command):
    return next((why for start, why in ELSEWHERE.items() if command.startswith(start)), None)


def test_commands_are_collected():
    assert len(commands()) > 55
    assert not [start for start in ELSEWHERE if not any(command.startswith(start) for command in commands())]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_mention_of_a_script_is_collected(path):
    """Except the commands that run inside ``srun`` and ``gcloud``."""
    text = path.read_text()
    local = text.count("python scripts/") - len(re.findall(r"(?:srun \S+|&&) python scripts/", text))
    assert sum(command.startswith("python scripts/") for command in COMMAND.findall(text)) == local


def test_make_targets_name_existing_files():
    makefile = (ROOT / "Makefile").read_text()
    assert not [path for path in re.findall(r"\b(?:scripts|tests)/[\w/.]+", makefile) if not (ROOT / path).exists()]
    targets = {target for path in DOCUMENTS for target in re.findall(r"(?:^|`)make ([\w-]+)", path.read_text(), re.MULTILINE)}
    assert targets <= set(re.findall(r"^([\w-]+):", makefile, re.MULTILINE))


def write_video(path, images, rate=10.0):
    height, width = images[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), rate, (width, height))
    for image in images:
        writer.write(image)
    writer.release()


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """A folder with the files that the commands name."""
    here = tmp_path_factory.mktemp("workspace")
    for name in ("scripts", "configs", "dd_jax", "docs"):
        (here / name).symlink_to(ROOT / name)
    make(str(here / "KITTI"), preset="tiny", workers=1, progress=False)
    drives = sorted((here / "KITTI").glob("*/*_sync"))
    example = here / "KITTI/2011_09_26/2011_09_26_drive_0001_sync"
    if not example.exists():
        example.parent.mkdir(exist_ok=True)
        example.symlink_to(drives[0])
    small = [cv2.imread(str(path)) for path in sorted((drives[0] / "image_02/data").glob("*.png"))]
    images = [cv2.resize(image, (1242, 376)) for image in small]  # the size that the documents' intrinsics fit
    write_video(here / "clip.mp4", images)
    (here / "frames").mkdir()
    for name, i in [("street.jpg", 0), ("before.png", 0), ("after.png", 1), *((f"frames/{i}.jpg", i) for i in range(3))]:
        cv2.imwrite(str(here / name), images[i])
    own_data(here / "ROOT", images)
    CityscapesTree(here / "CS").make_training(np.random.default_rng(0))
    (here / "CITYSCAPES").symlink_to(here / "CS")
    (here / "DIR").mkdir()
    lines = (here / "KITTI/splits/test_files.txt").read_text().splitlines()
    for place in range(len(lines)):
        np.save(here / f"DIR/{place:06d}.npy", np.full((48, 160), 10.0, np.float32))
    published_files(here, lines)
    return here


def published_files(here, lines):
    """Predictions identified by position only, and the published list of their order."""
    lists = here / "monodepth2/splits/eigen"
    lists.mkdir(parents=True)
    (lists / "test_files.txt").write_text("".join(f"{line}\n" for line in reversed(lines)))
    np.save(here / "disps_eigen_split.npy", np.full((len(lines), 48, 160), 0.1, np.float32))
    data = np.empty(len(lines), object)
    for place in range(len(lines)):
        data[place] = np.full((96, 320), 10.0, np.float32)
    np.savez_compressed(lists / "gt_depths.npz", data=data)


def own_data(root, images):
    """Frames of one clip with intrinsics and prior depth."""
    (root / "frames/clip").mkdir(parents=True), (root / "priors/clip").mkdir(parents=True)
    height, width = images[0].shape[:2]
    camera = f'{{"width": {width}, "height": {height}, "fx": 180, "fy": 180, "cx": {width / 2}, "cy": {height / 2}}}'
    (root / "intrinsics.json").write_text(camera)
    prior = np.linspace(2000, 65535, height, dtype=np.uint16)[:, None].repeat(width, 1)
    for i, image in enumerate(images):
        cv2.imwrite(str(root / f"frames/clip/{i:06d}.png"), image)
        cv2.imwrite(str(root / f"priors/clip/{i:06d}.png"), prior)


@pytest.mark.slow
@pytest.mark.parametrize("command", commands(), ids=str)
def test_command_runs(command, workspace):
    if why := reason_not_run(command):
        pytest.skip(f"{command}: {why}")
    script = re.match(r"python scripts/(\w+)\.py", command)[1]
    smaller = SMALLER.get(script, "")
    if script == "evaluate" and "--config" not in command:
        smaller = ""  # the checkpoint's config is small already
    target = re.search(r"--(?:out|workdir)[= ](\S+)", command)
    if target and script not in KEEPS_OUTPUT:
        shutil.rmtree(workspace / target[1], ignore_errors=True)
    words = [sys.executable, *shlex.split(command)[1:], *smaller.split()]
    environment = os.environ | {
        "XLA_FLAGS": "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true",
        "JAX_COMPILATION_CACHE_DIR": str(workspace / "compiled"),
    }
    done = subprocess.run(words, cwd=workspace, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
