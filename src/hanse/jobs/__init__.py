"""The job file: schema, names of parts, and building them."""
