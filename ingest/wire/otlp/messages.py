"""The messages of OTLP's logs as we read and write them: the protocol's own numbers and types, classes made here.

Only what we read is named, and groups of records are no messages here: records are taken out of them as bytes, one by one.
Texts, bodies and attributes of a record are bytes as well. So a record that is broken, or has a text that is no UTF-8, costs
only itself, where protobuf would refuse the whole body; and 8 MiB of empty groups do not become 300 MB.
"""

from __future__ import annotations

from typing import Final

from ingest.wire.protobuf import message_classes

_classes: Final = message_classes(
    "otlp",
    {
        "LogRecord": (
            "1 fixed64 time_unix_nano",
            "2 int32 severity_number",
            "3 bytes severity_text",
            "5 bytes body",
            "6 *bytes attributes",
            "9 bytes trace_id",
            "10 bytes span_id",
            "11 fixed64 observed_time_unix_nano",
            "12 bytes event_name",
        ),
        "Resource": ("1 *KeyValue attributes",),
        "Scope": ("1 string name", "2 string version", "3 *KeyValue attributes"),
        "KeyValue": ("1 string key", "2 AnyValue value"),
        "AnyValue": (
            "1 |string string_value",
            "2 |bool bool_value",
            "3 |int64 int_value",
            "4 |double double_value",
            "5 |ArrayValue array_value",
            "6 |KeyValueList kvlist_value",
            "7 |bytes bytes_value",
        ),
        "ArrayValue": ("1 *AnyValue values",),
        "KeyValueList": ("1 *KeyValue values",),
        "SimpleValues": ("1 *string texts", "3 *int64 numbers"),
        "Response": ("1 PartialSuccess partial_success",),
        "PartialSuccess": ("1 int64 rejected_log_records", "2 string error_message"),
        "Status": ("1 int32 code", "2 string message"),
    },
)
LogRecord: Final = _classes["LogRecord"]
Resource: Final = _classes["Resource"]
Scope: Final = _classes["Scope"]
KeyValue: Final = _classes["KeyValue"]
AnyValue: Final = _classes["AnyValue"]
SimpleValues: Final = _classes["SimpleValues"]
"""Many AnyValues one after the other, those that are texts or whole numbers."""
Response: Final = _classes["Response"]
Status: Final = _classes["Status"]

BODY: Final = 5
"""Of a record."""
STRING_VALUE: Final = 1
INT_VALUE: Final = 3
"""Of an AnyValue."""
