"""Where logs are kept: rows, their catalogue, and everything that must change in one transaction with them."""
