"""Fills of a hole that need no training."""
