"""DrQ-v2: an actor-critic agent that sees pictures."""
