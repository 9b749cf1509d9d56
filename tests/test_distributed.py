"""How several processes share the work; tests/slow starts them."""


def test_bad_numbers_of_devices(sample_folder, script, tmp_path):
    folders = ("--data-dir", sample_folder, "--output-dir", tmp_path)
    status, _, stderr = script("train", *folders, "--devices", 0)
    assert status == 2 and "--devices 0" in stderr
    photo = (
        "--baseline",
        "telea",
        "--input",
        sample_folder / "test_input",
        "--output",
        tmp_path / "out",
    )
    status, _, stderr = script("infer", *photo, "--engine", "ray", "--devices", 0)
    assert status == 2 and "--devices 0" in stderr
