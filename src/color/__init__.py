"""Colour on the 8-bit lattice, and the decode from hue distributions to colours."""
