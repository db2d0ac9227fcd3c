"""Hostile clients in a simulation: who they are, what they train on, and what they send."""
