"""Copy a run's best checkpoints to weights/ in float16: python -m tools.ship_weights outputs/restorer

The curves go with them. Folds that the run does not hold stay as they are.
"""

import argparse
import shutil
from pathlib import Path

import torch

from src.checkpoints import BEST, SHIPPED, fold_checkpoints, load_model, save_model


def main() -> None:
    """Write the folds that the command line names, and print the size of the whole."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="a run's folder, such as outputs/restorer")
    for path in fold_checkpoints(parser.parse_args().run, None):
        model, description = load_model(path, torch.device("cpu"))
        facts = {key: value for key, value in description.items() if key not in ("model", "arguments")}
        target = SHIPPED / path.parent.name
        save_model(target / BEST, model, description["model"], facts, half=True)
        for name in ("metrics.jsonl", "config.json"):
            shutil.copy(path.parent / name, target / name)
        print(f"{target}: step {description['step']}, score {description['score']['score']:.4f}")
    size = sum(path.stat().st_size for path in SHIPPED.rglob("*") if path.is_file())
    print(f"{SHIPPED}: {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
