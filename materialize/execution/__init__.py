"""One run: contexts, steps, captured output, interruption."""
