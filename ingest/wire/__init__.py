"""Formats that other shippers speak, a folder each: read into items of ours, answered in the words of their own protocol."""
