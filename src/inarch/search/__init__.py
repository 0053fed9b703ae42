"""Which trials a study runs, and what it chooses: pure functions of what was found so far."""
