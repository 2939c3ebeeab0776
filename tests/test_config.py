"""Settings: a bad value names the setting and what is allowed."""

import pytest

from dualstream_lab.config import Settings, kafka_client_options
from dualstream_lab.errors import ConfigError


@pytest.mark.parametrize(
    ("setting", "value", "told"),
    [
        ("kafka_url", "http://host:1", "kafka://"),
        ("kafka_url", "host", "host:port"),
        ("kafka_url", "kafka://host:99999", "host:port"),
        ("kafka_url", "kafka://host:1?sasl_mechanism=MAGIC", "SCRAM-SHA-512"),
        ("kafka_url", "kafka://host:1?ca=x", "ssl_cafile"),
        ("redis_url", "redis+sentinel://host", "Sentinel"),
        ("redis_url", "redis://a:1,b:2", "Cluster"),
        ("redis_url", "host:6379", "redis://"),
        ("topic", "a b", "pattern"),
        ("buffer_events", "0", "greater than or equal to 1"),
    ],
)
def test_a_bad_value_names_its_setting_and_what_is_allowed(setting, value, told, monkeypatch):
    with pytest.raises(ConfigError, match=setting) as caught:
        Settings.load(**{setting: value})
    assert told in str(caught.value)
    monkeypatch.setenv(f"DUALSTREAM_{setting.upper()}", value)
    with pytest.raises(ConfigError, match=f"DUALSTREAM_{setting.upper()}"):
        Settings.load()


def test_an_unknown_setting_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match=r"unknown setting kafka; known: .*kafka_url"):
        Settings.load(kafka="host:1")


def test_a_password_is_never_repeated():
    with pytest.raises(ConfigError) as caught:
        Settings.load(kafka_url="kafka://user:hunter2@host")
    assert "hunter2" not in str(caught.value)


def test_arguments_win_over_the_environment(monkeypatch):
    monkeypatch.setenv("DUALSTREAM_TOPIC", "from-environment")
    assert Settings.load().topic == "from-environment"
    assert Settings.load(topic="given").topic == "given"


def test_a_kafka_url_becomes_client_options():
    assert kafka_client_options("kafka://u:p%40@h:1,b:2?sasl_mechanism=SCRAM-SHA-256") == {
        "bootstrap_servers": ["h:1", "b:2"],
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": "SCRAM-SHA-256",
        "sasl_plain_username": "u",
        "sasl_plain_password": "p@",
    }
