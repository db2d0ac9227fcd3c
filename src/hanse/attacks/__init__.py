"""Attacks that can be placed in any simulation: what hostile clients send, and what they train on."""
