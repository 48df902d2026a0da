"""Running the benchmarks on a machine with a GPU and without a network."""
