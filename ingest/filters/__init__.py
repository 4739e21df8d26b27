"""The filter chain: which logs are kept, in which form. Built from configuration, pure but for the buckets of limits."""
