"""What bench.py measures, a file for each subcommand."""
