"""Converts a published PyTorch checkpoint to a folder that dd_jax.load, predict.py and evaluate.py read; and back.

    python scripts/import_torch.py KITTI_MR --config=configs/many_depth.py:kitti --out=published/many_depth

takes the folder of a checkpoint, hf://owner/name or hf://owner/name@revision, or its files: .safetensors, or .pth, .pt and .ckpt
if PyTorch is installed; no code in them is run. #DIGEST may follow each, the beginning of its SHA-256.
The config names the method; sizes, layers and bins are taken from the files if they contain them.

    python scripts/import_torch.py --export=runs/kitti --out=DIR [--which=best|latest|STEP]

writes a trained model, one file per network, in the published format. See docs/checkpoints.md.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # configs/ import one another

from dd_jax.checkpoints import published, saved
from dd_jax.config import ConfigError
from dd_jax.runtime import command_line


def main(arguments: list[str] | None = None) -> None:
    parser = command_line.Parser(__doc__)
    parser.add_argument("places", nargs="*", metavar="PLACE", help="folder, hf://owner/name or file; PLACE#DIGEST")
    parser.add_argument("--export", metavar="CHECKPOINT", help="folder of a run, one that model.save wrote, or hf://owner/name")
    parser.add_argument("--which", default="best", help="checkpoint of a run to export: best | latest | a step")
    parser.add_argument("--out", type=Path, required=True, help="output folder")
    flags, config_flags = parser.parse_known_args(arguments)
    with command_line.job():
        if bool(flags.places) == (flags.export is not None):
            raise ConfigError("name the files of a checkpoint to import, or --export=CHECKPOINT, not both")
        if flags.export is not None:
            if config_flags:
                raise ConfigError(f"{config_flags[0]} is not a flag of --export; --help lists all flags")
            print(*published.export(flags.out, saved.restore(flags.export, flags.which)), sep="\n")
            return
        if not any(flag.partition("=")[0] == "--config" for flag in config_flags):
            raise ConfigError("the method is not given: set --config=configs/NAME.py:VARIANT")
        imported = published.read(flags.places, command_line.config_of(config_flags))
        saved.write(flags.out, imported.restored)
        print(*imported.remarks, f"{flags.out}: {imported.restored.config.name}, to be read by dd_jax.load", sep="\n")


if __name__ == "__main__":
    main()
