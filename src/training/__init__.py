"""The parts of a training run; the loop itself is train.py."""
