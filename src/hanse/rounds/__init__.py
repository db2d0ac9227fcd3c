"""The round loop, cohort selection, evaluation, journal and checkpoints."""
