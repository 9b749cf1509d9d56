"""The machine and the versions that a table was measured with."""

import platform

import cpuinfo
import cv2
import numpy as np
import skimage
import torch

from src.parallel import cores


def describe_machine() -> str:
    """One line: processor, cores and versions."""
    versions = {"torch": torch, "numpy": np, "OpenCV": cv2, "scikit-image": skimage}
    names = ", ".join(f"{name} {module.__version__}" for name, module in versions.items())
    processor = cpuinfo.get_cpu_info().get("brand_raw", platform.machine())
    return f"{processor}, {cores()} cores; Python {platform.python_version()}, {names}"
