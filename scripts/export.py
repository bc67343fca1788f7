"""Exports a trained model to files that run elsewhere: StableHLO for programs with JAX, ONNX for all others.

    pip install -e '.[export]'
    python scripts/export.py --checkpoint=runs/kitti --out=exported
    python scripts/export.py --checkpoint=runs/kitti --out=exported --format=stablehlo --network=student --pixels=uint8

writes teacher.* (one frame) and student.* (two frames, with cost volume and DOMD), weights included, for any batch size, and
signature.json, which describes inputs and outputs. Each file is read again and compared with the library's own output.
"""

from pathlib import Path

from dd_jax.checkpoints import saved
from dd_jax.export.artifacts import FORMATS, export, table
from dd_jax.export.programs import PIXELS
from dd_jax.inference import api
from dd_jax.runtime import command_line


def main(argv: list[str] | None = None) -> None:
    parser = command_line.Parser(__doc__)
    parser.add_argument("--checkpoint", required=True, help="folder of a run, one that model.save wrote, or hf://owner/name")
    parser.add_argument("--which", default="best", help="checkpoint of a run: best | latest | a step")
    parser.add_argument("--out", type=Path, required=True, help="output folder")
    parser.add_argument("--format", default=",".join(FORMATS), help="stablehlo, onnx, or both separated by a comma (the default)")
    parser.add_argument("--network", default="auto", choices=api.NETWORKS, help="auto: all networks of the model")
    parser.add_argument("--pixels", default="float32", choices=PIXELS, help="input images: float32 in [0, 1], or uint8")
    flags = parser.parse_args(argv)
    with command_line.job():
        restored = saved.restore(flags.checkpoint, flags.which)
        print(table(export(restored, flags.out, flags.format.split(","), flags.network, flags.pixels)))
    print(f"{flags.out / 'signature.json'} describes inputs and outputs")


if __name__ == "__main__":
    main()
