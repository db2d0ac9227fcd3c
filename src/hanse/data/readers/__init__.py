"""Readers for file formats."""
