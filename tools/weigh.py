"""Weigh the images of a folder built from our photographs: python -m tools.weigh --data-dir DIR

Writes the column `weight` of its folds.csv. Sources of near-duplicates count less; streets in Korea
count more, and so do photos with much vivid green or red: they are rare in our sources, and without
the weights the colorizer makes foliage brown.
"""

import argparse
from pathlib import Path

import cv2
import numpy as np

from src.datasets.competition import read_truth
from src.datasets.folds import load_folds, photo_sources
from src.utils.files import write_text

GREEN, RED = range(30, 90), [*range(8), *range(170, 180)]  # OpenCV's hues
SOURCES = {
    3.0: ["korea_streets"],
    2.0: ["global_streetscapes", "opensfm_berlin_lund"],
    1.5: ["ubuntu_wallpapers", "matheustt_unsplash"],
    0.8: ["vehicles_oi"],
    0.7: ["kaggle_roadsign877"],
    0.5: ["azure_samples", "bits_campus", "dreambooth", "metadata_extractor"],
    0.4: ["bd_pothole_own"],
    0.35: ["grocery", "lire_ferrari", "potholes"],
}


def vivid_shares(truth: Path) -> tuple[float, float]:
    """Shares of an image's pixels that are vividly green and vividly red."""
    rgb = np.ascontiguousarray(read_truth(truth)[8::16, 8::16])
    hue = cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV)[..., 0]
    vivid = np.ptp(rgb, axis=-1) >= 40
    return float((np.isin(hue, GREEN) & vivid).mean()), float((np.isin(hue, RED) & vivid).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, required=True, help="the folder that was built")
    folder = parser.parse_args().data_dir
    table = load_folds(folder)
    shares = np.array([vivid_shares(folder / path) for path in table["gt_image_path"]])
    names = table["input_image_path"].map(lambda path: Path(path).stem)
    source = photo_sources(folder).reindex(names, fill_value="").str.rpartition("/")[2].to_numpy()
    factors = {name: factor for factor, names in SOURCES.items() for name in names}
    factor = np.array([factors.get(name, 1.0) for name in source])
    table["weight"] = (factor * (1 + shares @ [10, 5])).round(2)
    write_text(folder / "folds.csv", table.to_csv(index=False))
    print(table.groupby(source)["weight"].agg(["size", "mean", "max"]).round(2).to_string())


if __name__ == "__main__":
    main()
