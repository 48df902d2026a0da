"""Sparse training for scalable deep reinforcement learning, in JAX."""
