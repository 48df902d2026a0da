"""Agents that learn from each transition once, when it is made."""
