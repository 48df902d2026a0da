"""What is compiled: the state of the loop, a step, the drivers, evaluation and diagnostics."""
