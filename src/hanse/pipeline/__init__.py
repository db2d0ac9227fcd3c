"""Stages around one aggregator, checked when built."""
