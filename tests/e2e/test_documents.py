"""Every command of the README and of the documents, run where what it names is there: small data, narrow networks, few steps."""

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
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMAND = re.compile(r"(?:^|`)((?:python scripts/|(?:make|git|pip|python3) )(?:[^`\n\\]|\\\n)*)", re.MULTILINE)

ELSEWHERE = {
    "git ": "needs a server",
    "pip ": "needs the network",
    "python3 -m venv": "needs the network",
    "make ": "makes an environment from the network; the targets' own commands are below",
    "python scripts/make_masks.py": "gets weights from the network; tests/prepare runs it with a network made on the spot",
    "python scripts/make_prior_depth.py": "likewise",
    "python scripts/import_torch.py --export": "",
    "python scripts/import_torch.py": "needs published weights; tests/test_imports.py makes files like them",
    "python scripts/train.py --config=configs/dynamic_depth.py:kitti --config.train.init_encoders": "needs ImageNet weights",
    "python scripts/compile_for.py": "takes the compiler for TPUs half an hour; tests/test_aot.py",
    "python scripts/train.py ...": "is one of two processes; tests/e2e/test_train.py starts both",
    "python scripts/benchmark.py --peer": "needs PyTorch and manydepth; tests/benchmarks/test_pytorch_peer.py",
}
"""How commands begin that are not run here, and why; those without a reason are run."""

NETWORKS = "--config.model.width=8 --config.cost_volume.bins=8"
DATA = "--config.data.height=64 --config.data.width=96 --config.data.batch_size=2 --config.data.split="
STEPS = "--config.optim.steps=2 --config.optim.freeze_step=-1 --config.optim.decay_steps=0 --config.train.eval_frames=2"
SMALLER = {
    "make_synthetic": "--preset=tiny",
    "train": f"{DATA} {NETWORKS} {STEPS}",
    "check_data": DATA,
    "prepare_tfds": DATA,
    "evaluate": DATA,
    "run_ablations": "--table_only",
    "benchmark": f"{NETWORKS} --config.data.height=64 --config.data.width=96 --repeats=1",
    "export_ground_truth": "--split=",
}
"""What is appended to the commands of a script."""

GOES_ON = ("make_synthetic", "run_ablations", "import_torch")
"""Scripts that find what an earlier command wrote; for the others, what another command wrote there is removed."""


def commands():
    """All of them, in order, each once."""
    found = [match.strip() for path in DOCUMENTS for match in COMMAND.findall(path.read_text())]
    return list(dict.fromkeys(" ".join(shlex.split(command.replace("\\\n", " "), comments=True)) for command in found))


def reason(command):
    return next((why for start, why in ELSEWHERE.items() if command.startswith(start)), None)


def test_the_documents_name_commands():
    assert len(commands()) > 40 and not [start for start in ELSEWHERE if not any(c.startswith(start) for c in commands())]


def write_video(path, pictures, rate=10.0):
    height, width = pictures[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), rate, (width, height))
    for picture in pictures:
        writer.write(picture)
    writer.release()


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """A folder in which the names of the documents exist."""
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
    pictures = [cv2.resize(picture, (1242, 376)) for picture in small]  # the documents' cameras fit these
    write_video(here / "clip.mp4", pictures)
    (here / "frames").mkdir()
    for name, picture in [("street.jpg", 0), ("before.png", 0), ("after.png", 1), *((f"frames/{i}.jpg", i) for i in range(3))]:
        cv2.imwrite(str(here / name), pictures[picture])
    own_data(here / "ROOT", pictures)
    CityscapesTree(here / "CS").make_training(np.random.default_rng(0))
    (here / "CITYSCAPES").symlink_to(here / "CS")
    (here / "DIR").mkdir()
    lines = (here / "KITTI/splits/test_files.txt").read_text().splitlines()
    for place in range(len(lines)):
        np.save(here / f"DIR/{place:06d}.npy", np.full((48, 160), 10.0, np.float32))
    published_files(here, lines)
    shutil.copytree(ROOT / "docs/results", here / "runs/ablations/results")
    return here


def published_files(here, lines):
    """Depth without names, and the list that gives its order."""
    lists = here / "monodepth2/splits/eigen"
    lists.mkdir(parents=True)
    (lists / "test_files.txt").write_text("".join(f"{line}\n" for line in reversed(lines)))
    np.save(here / "disps_eigen_split.npy", np.full((len(lines), 48, 160), 0.1, np.float32))
    data = np.empty(len(lines), object)
    for place in range(len(lines)):
        data[place] = np.full((96, 320), 10.0, np.float32)
    np.savez_compressed(lists / "gt_depths.npz", data=data)


def own_data(root, pictures):
    """A folder of frames with prior depth."""
    (root / "frames/clip").mkdir(parents=True), (root / "priors/clip").mkdir(parents=True)
    height, width = pictures[0].shape[:2]
    camera = f'{{"width": {width}, "height": {height}, "fx": 180, "fy": 180, "cx": {width / 2}, "cy": {height / 2}}}'
    (root / "intrinsics.json").write_text(camera)
    near_below = np.linspace(2000, 65535, height, dtype=np.uint16)[:, None].repeat(width, 1)
    for i, picture in enumerate(pictures):
        cv2.imwrite(str(root / f"frames/clip/{i:06d}.png"), picture)
        cv2.imwrite(str(root / f"priors/clip/{i:06d}.png"), near_below)


@pytest.mark.slow
@pytest.mark.parametrize("command", commands(), ids=str)
def test_the_command_runs(command, workspace):
    if why := reason(command):
        pytest.skip(f"{command}: {why}")
    script = re.match(r"python scripts/(\w+)\.py", command)[1]
    smaller = SMALLER.get(script, "")
    if script == "evaluate" and "--config" not in command:
        smaller = ""
    target = re.search(r"--(?:out|workdir)[= ](\S+)", command)
    if target and script not in GOES_ON:
        shutil.rmtree(workspace / target[1], ignore_errors=True)
    words = [sys.executable, *shlex.split(command)[1:], *smaller.split()]
    environment = os.environ | {
        "XLA_FLAGS": "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true",
        "JAX_COMPILATION_CACHE_DIR": str(workspace / "compiled"),
    }
    done = subprocess.run(words, cwd=workspace, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
