"""Hanse: federated learning from one job file."""

__version__ = "0.1.0"
