"""The robustness table: every attack against every rule, simulated on one small data set."""
