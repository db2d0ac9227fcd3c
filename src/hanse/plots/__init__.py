"""Plots of runs and data, for notebooks and the report."""
