"""What the shipped weights are worth to a training."""

from src.runs import SHIPPED
from tests.training import metrics, train


def test_a_warm_start_beats_a_cold_one(sample_folder, tmp_path):
    """The same steps on photos that the shipped folds never saw."""
    best = {}
    for name, flags in (("cold", ()), ("warm", ("--init", SHIPPED))):
        folders = ("--data-dir", sample_folder, "--output-dir", tmp_path, "--name", name)
        size = ("--epochs", 2, "--image-size", 256, "--val-images", 4, "--workers", 0)
        train(*folders, *size, *flags)
        lines = metrics(tmp_path / name / "fold0", "val/score")
        best[name] = max(line["val/score"] for line in lines)
    assert best["warm"] > best["cold"] + 0.02, best
