"""Environments on the host: worker processes and what they say to each other."""
