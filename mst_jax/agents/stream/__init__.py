"""Agents that learn from each transition once, as it comes, without a replay buffer."""
