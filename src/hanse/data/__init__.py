"""Data sets, readers, partitioners and splits."""
