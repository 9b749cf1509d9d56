"""The networks, and how they are kept in files."""
