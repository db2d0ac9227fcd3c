"""Ways to share one data set out among clients."""
