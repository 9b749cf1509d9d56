"""The base layer: files, processes, signals, devices, settings, the command line."""
