"""Restoring damaged grey photographs in colour."""

import os

# Both are read when the libraries are first imported.
os.environ.setdefault("KMP_BLOCKTIME", "0")  # OpenMP threads that spin between layers slow small CPUs down
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # no look-up of newer releases over the network
