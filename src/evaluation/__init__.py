"""Scores of restored images, the report page, and the zip for the leaderboard."""
