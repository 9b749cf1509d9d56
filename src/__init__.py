"""Restoring damaged grey photographs in colour."""

import os

os.environ.setdefault(
    "NO_ALBUMENTATIONS_UPDATE", "1"
)  # no look-up of newer releases over the network
