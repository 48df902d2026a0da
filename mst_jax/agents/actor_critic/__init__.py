"""SAC and DDPG: a critic, an actor, and no model of anything."""
