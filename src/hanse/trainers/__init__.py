"""Running local work: the only place, with tasks, that knows a machine-learning framework."""
