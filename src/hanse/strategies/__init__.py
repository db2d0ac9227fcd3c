"""Server state and update rules, one paper a file."""
