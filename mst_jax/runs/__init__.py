"""A run on disk: who owns its folder, and how its files are written."""
