"""OTLP/HTTP logs: what OpenTelemetry's SDKs and Collectors send.

    POST /v1/logs ── protobuf.py │ json_body.py ──▶ records.py ──▶ as all logs ──▶ answers.py

Source: OpenTelemetry Protocol 1.x (`docs/specification.md` of opentelemetry-proto), its `logs/v1/logs.proto`, and the data
model of logs. Left out: gRPC, traces, metrics; of a record `flags` and `dropped_attributes_count`, of its surroundings
`schema_url`.
"""
