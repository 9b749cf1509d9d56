"""Measurements: how good and how fast each part is, and whether a change made anything slower.

`python -m benchmarks NAME` calls `run` of the module of that name; its settings are in
`benchmarks.settings`. The tables of docs/experiments.md come from here.
"""
