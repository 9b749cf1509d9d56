"""Copy a run's checkpoints to weights/ in float16: python -m tools.ship_weights outputs/restorer

Curves and settings go with them, without this machine's paths. Networks and folds that the run
did not train stay as they are. Fold 0 of a detector becomes weights/detector.safetensors.
"""

import argparse
import shutil
from pathlib import Path

from src.models.checkpoints import network_files, read_network, write_network
from src.runs import DETECTOR, SHIPPED, fold_checkpoints
from src.utils.files import read_json, write_json

MACHINE = ("data_dir", "output_dir", "init")  # settings that are paths


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="a run's folder, such as outputs/restorer")
    parser.add_argument("--weights", type=Path, default=SHIPPED, help="the folder to write to")
    arguments = parser.parse_args()
    for folder in fold_checkpoints(arguments.run):
        ship_fold(folder, arguments.weights)
    size = sum(path.stat().st_size for path in arguments.weights.rglob("*") if path.is_file())
    print(f"{arguments.weights}: {size / 1e6:.2f} MB")


def ship_fold(folder: Path, weights: Path) -> None:
    """Write the networks that a fold trained, and its curves and settings."""
    config = read_json(folder / "config.json", "train the fold again")
    trained = config.get("parts", "both")
    prefix = "" if trained == "both" else f"{trained}_"
    for file in network_files(folder):
        if trained not in ("both", file.stem):
            continue  # came from --init
        description, tensors = read_network(file)
        score = f"step {description['step']}, score {description['score']['score']:.4f}"
        if description["model"] == "detector":
            if description["fold"] != 0:
                continue
            target = weights / DETECTOR.name
        else:
            target = weights / folder.name / file.name
        write_network(target, tensors, description, half=True)
        print(f"{target}: {score}")
        if target.parent != weights:
            shutil.copy(folder / "metrics.jsonl", target.parent / f"{prefix}metrics.jsonl")
            settings = {key: value for key, value in config.items() if key not in MACHINE}
            write_json(target.parent / f"{prefix}config.json", settings)


if __name__ == "__main__":
    main()
