"""How good and how fast it is: the tables of docs/experiments.md, one module per kind."""
