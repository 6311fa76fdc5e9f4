"""What depends on the machine's speed: figures, never a test's pass or fail. Ratios of medians, interleaved."""
