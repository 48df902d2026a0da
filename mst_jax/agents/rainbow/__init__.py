"""DER: a value-based agent that sees pictures and chooses among discrete actions."""
