"""Damage, drawn and found: the holes of the competition, and the marks of age on photographs."""
