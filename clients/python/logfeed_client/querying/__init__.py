"""Asks: pages, logs by id, stories, histograms, logs as they come."""
