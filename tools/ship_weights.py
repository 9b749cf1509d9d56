"""Copy a run's best checkpoints to weights/ in float16: python -m tools.ship_weights
outputs/restorer

The curves and settings of restoring models go with them, without the folders of this machine.
Networks and folds that the run does not hold stay as they are. Of a detector, fold 0 becomes
weights/detector.safetensors.
"""

import argparse
import shutil
from pathlib import Path

from src.models.checkpoints import network_files, read_network, write_network
from src.runs import DETECTOR, SHIPPED, fold_checkpoints
from src.utils.files import read_json, write_json

MACHINE = (
    "data_dir",
    "output_dir",
    "init",
)  # settings that name folders of the machine that trained


def main() -> None:
    """Write the folds that the command line names, and print the size of the whole."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="a run's folder, such as outputs/restorer")
    parser.add_argument("--weights", type=Path, default=SHIPPED, help="the folder to write to")
    arguments = parser.parse_args()
    for folder in fold_checkpoints(arguments.run):
        config, fold = folder / "config.json", arguments.weights / folder.name
        trained = read_json(config, "train the fold again").get("parts", "both")
        prefix = "" if trained == "both" else f"{trained}_"
        for file in network_files(folder):
            description, tensors = read_network(file)
            if trained not in ("both", file.stem):
                continue  # another run's, which this one began with
            detector = description["model"] == "detector"
            if detector and description["fold"] != 0:
                continue
            target = arguments.weights / DETECTOR.name if detector else fold / file.name
            write_network(target, tensors, description, half=True)
            print(
                f"{target}: step {description['step']}, score {description['score']['score']:.4f}"
            )
            if not detector:
                shutil.copy(folder / "metrics.jsonl", fold / f"{prefix}metrics.jsonl")
                write_config(config, fold / f"{prefix}config.json")
    size = sum(path.stat().st_size for path in arguments.weights.rglob("*") if path.is_file())
    print(f"{arguments.weights}: {size / 1e6:.2f} MB")


def write_config(source: Path, target: Path) -> None:
    """Copy the settings of a run without what only its machine knows."""
    config = read_json(source, "train the fold again")
    write_json(target, {key: value for key, value in config.items() if key not in MACHINE})


if __name__ == "__main__":
    main()
