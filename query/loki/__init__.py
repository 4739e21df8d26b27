"""A subset of Loki's query API, for Grafana's data source and logcli. docs/grafana.md."""
