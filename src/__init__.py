"""Restoring damaged grey photographs in colour."""

import os
import tempfile

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # no look-up of newer releases
# numba keeps what it compiled beside the code or in the home; some containers can write neither
if not any(os.access(place, os.W_OK) for place in (__path__[0], os.path.expanduser("~"))):
    os.environ.setdefault("NUMBA_CACHE_DIR", tempfile.mkdtemp(prefix="numba-"))
