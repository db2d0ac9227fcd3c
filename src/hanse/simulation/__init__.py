"""The simulator: in-process and process-pool transports under the round loop."""
