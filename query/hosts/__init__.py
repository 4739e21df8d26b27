"""Hosts: whose agent is heard of, and the files there, read through this server. See docs/hosts.md."""
