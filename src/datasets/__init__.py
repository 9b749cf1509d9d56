"""The competition folder: read, checked, built, packed, split into folds and loaded."""
