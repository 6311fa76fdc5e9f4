"""The services that the benchmark compares ours with."""
