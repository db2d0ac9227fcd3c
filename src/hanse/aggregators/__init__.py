"""Many updates into one."""
