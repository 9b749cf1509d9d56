"""Copy a run's best checkpoints to weights/ in float16: python -m tools.ship_weights outputs/restorer

The curves and settings of restoring models go with them, without the folders of this machine. Folds that the
run does not hold stay as they are. Of a detector, fold 0 becomes weights/detector.safetensors.
"""

import argparse
import shutil
from pathlib import Path

import torch

from src.models.checkpoints import BEST, DETECTOR, SHIPPED, fold_checkpoints, load_model, save_model
from src.runtime.files import read_json, write_json

MACHINE = ("data_dir", "output_dir", "init")  # settings that name folders of the machine that trained


def main() -> None:
    """Write the folds that the command line names, and print the size of the whole."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="a run's folder, such as outputs/restorer")
    parser.add_argument("--weights", type=Path, default=SHIPPED, help="the folder to write to")
    arguments = parser.parse_args()
    for path in fold_checkpoints(arguments.run):
        model, description = load_model(path, torch.device("cpu"))
        facts = {key: value for key, value in description.items() if key not in ("model", "arguments")}
        name, fold = description["model"], arguments.weights / path.parent.name
        if name == "detector" and facts["fold"] != 0:
            continue
        target = arguments.weights / DETECTOR.name if name == "detector" else fold / BEST
        save_model(target, model, name, facts, half=True)
        if name != "detector":
            shutil.copy(path.parent / "metrics.jsonl", fold)
            write_config(path.parent / "config.json", fold / "config.json")
        print(f"{target}: step {facts['step']}, score {facts['score']['score']:.4f}")
    size = sum(path.stat().st_size for path in arguments.weights.rglob("*") if path.is_file())
    print(f"{arguments.weights}: {size / 1e6:.2f} MB")


def write_config(source: Path, target: Path) -> None:
    """Copy the settings of a run without what only its machine knows."""
    config = read_json(source, "train the fold again")
    write_json(target, {key: value for key, value in config.items() if key not in MACHINE})


if __name__ == "__main__":
    main()
