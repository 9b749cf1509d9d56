"""The largest model, trained and resumed from the command line."""

import shutil

import numpy as np
import pandas as pd

from tests.test_models import lowers_the_loss
from tests.training import metrics


def test_a_few_steps_lower_the_loss_at_its_real_width():
    lowers_the_loss("gan")


def test_gan_trains_and_resumes(sample_folder, script, tmp_path):
    table = pd.read_csv(sample_folder / "train.csv")
    for part in ("train_input", "train_gt"):
        shutil.copytree(sample_folder / part, tmp_path / "data" / part)
    crops = pd.read_csv(sample_folder / "crops.csv").drop_duplicates("photo")["name"]
    chosen = [path.split("/")[-1][:-4] in set(crops) for path in table["gt_image_path"]]
    table[chosen].head(3).to_csv(tmp_path / "data" / "train.csv", index=False)
    folders = ["--data-dir", tmp_path / "data", "--output-dir", tmp_path]
    flags = [*folders, "--folds", 3, "--batch-size", 2, "--workers", 0, "--val-images", 1]
    for epochs in (1, 2):
        status, _, stderr = script("train", "gan", *flags, "--epochs", epochs)
        assert status == 0, stderr
    lines = metrics(tmp_path / "gan" / "fold0", "loss/l1")
    assert [line["step"] for line in lines] == [1, 2]
    assert all(np.isfinite(line["loss/discriminator"]) for line in lines)
