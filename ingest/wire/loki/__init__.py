"""Loki's push API, as Promtail, Alloy, Fluent Bit, Docker's driver and libraries speak it. docs/shippers/loki.md."""
