"""Launchers, recipes and notebooks."""
