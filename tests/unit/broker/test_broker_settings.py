"""What the settings refuse, and which broker they make."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from broker.factory import make_broker
from broker.kafka import KafkaBroker
from broker.settings import BrokerSettings
from schemas.errors import ConfigurationError
from schemas.frames import FRAME_BYTES_MAX


def test_every_setting_is_described() -> None:
    assert [name for name, field in BrokerSettings.model_fields.items() if not field.description] == []


def test_bytes_in_flight_must_hold_the_largest_frame() -> None:
    with pytest.raises(ValidationError, match="in_flight_bytes_max"):
        BrokerSettings(in_flight_bytes_max=FRAME_BYTES_MAX - 1)


def test_sasl_needs_user_and_password() -> None:
    with pytest.raises(ValidationError, match="sasl_username and sasl_password"):
        BrokerSettings.model_validate({"security_protocol": "SASL_SSL", "sasl_username": "u"})


def test_password_is_not_shown() -> None:
    settings = BrokerSettings.model_validate({"sasl_password": "hunter2"})
    assert "hunter2" not in repr(settings) + settings.model_dump_json()


def test_queue_without_a_database_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="database"):
        make_broker(BrokerSettings(kind="queue"), None)


def test_kafka_needs_no_database() -> None:
    assert isinstance(make_broker(BrokerSettings(kind="kafka"), None), KafkaBroker)
