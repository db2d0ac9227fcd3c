"""Rules under which some clients may send anything at all, and the aggregator that applies them."""
