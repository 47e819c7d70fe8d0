"""Launch scripts and the records in them."""
