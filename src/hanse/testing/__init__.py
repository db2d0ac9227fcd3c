"""Public fakes and conformance checks, for people who write their own parts."""
