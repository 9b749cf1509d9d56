"""The base layer: files, images, processes, devices, settings, the command line."""
