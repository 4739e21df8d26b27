"""Connections shown: lists, both logs, series, figures."""
