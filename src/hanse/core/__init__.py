"""Parameters, messages, protocols, randomness, events and errors: NumPy and array-api-compat only."""
