"""What everything else stands on: files, processes, signals, devices, settings, the command line."""
