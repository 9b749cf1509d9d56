"""Damage, drawn and found: the holes of the competition, and what time does to photographs."""
