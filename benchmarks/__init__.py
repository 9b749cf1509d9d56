"""Quality and speed: the tables of docs/experiments.md, one module per kind."""
