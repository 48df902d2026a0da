"""Environments as jax functions: episodes and failures around a pure simulation."""
