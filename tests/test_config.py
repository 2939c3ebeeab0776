"""Settings: a bad value names the setting and what is allowed."""

import pytest

from dualstream_lab.config import ServeSettings, Settings, kafka_client_options
from dualstream_lab.errors import ConfigError
from dualstream_lab.subscriber.wanted import checked_url


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
        ("redis_url", "redis://host:x", "port"),
        ("redis_url", "redis://[::1", "URL"),
        ("kafka_url", "kafka://[::1", "URL"),
        ("kafka_url", "kafka://host:9092#x", "%23"),
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


# Whatever a password holds: the parser then takes a piece of it for a port, a path, an option or a name.
AWKWARD = [
    "hunter2",
    "hunt/er2",
    "hunt?er2",
    "hunt#er2",
    "hunt@er2",
    "12/er2",
    "12?er2",
    "12#er2",
    "[er2",
    "h\u2100er2",
]


@pytest.mark.parametrize("password", AWKWARD)
@pytest.mark.parametrize(
    ("setting", "url"),
    [
        ("kafka_url", "kafka://alice:{}@host"),
        ("kafka_url", "alice:{}@host"),
        ("kafka_url", "kafka://alice:{}@host:9092?x=1"),
        ("kafka_url", "amqp://alice:{}@host:9092"),
        ("kafka_url", "alice:{}://x@host:9092"),
        ("redis_url", "redis://alice:{}@host:x"),
        ("redis_url", "rediss://alice:{}@"),
        ("redis_url", "alice:{}@host:6379"),
        ("redis_url", "amqp://alice:{}@host:6379"),
        ("redis_url", "redis+cluster://alice:{}@host:6379"),
        ("jwks_url", "https://alice:{}@host/keys"),
    ],
)
def test_no_part_of_a_user_or_password_is_ever_repeated(setting, url, password):
    with pytest.raises(ConfigError, match=setting) as caught:
        ServeSettings.load(**{setting: url.format(password)})
    assert not [part for part in ("alice", "hunt", "er2", "12") if part in str(caught.value)]


@pytest.mark.parametrize("password", ["hunt/er2", "12/er2", "12?er2", "12#er2"])
@pytest.mark.parametrize("setting", ["kafka_url", "redis_url"])
def test_a_password_that_the_parser_takes_for_something_else_is_refused_with_how_to_write_it(
    setting, password
):
    """`redis://user:12/er2@host` would be database `er2@host` of a server `user`, port 12."""
    scheme = setting.removesuffix("_url")
    with pytest.raises(ConfigError, match="%2F for /"):
        Settings.load(**{setting: f"{scheme}://user:{password}@host:1"})
    assert Settings.load(**{setting: f"{scheme}://user:hunt%2Fer2@host:1"})


@pytest.mark.parametrize(
    "url",
    ["http://issuer.example/keys", "ftp://issuer/keys", "issuer", "https:///keys", "http://127.0.0.1.x/k"],
)
def test_keys_come_only_from_where_nobody_can_change_them(url):
    with pytest.raises(ConfigError, match="jwks_url: must be https://"):
        ServeSettings.load(jwks_url=url)
    for good in ("https://issuer.example/keys", "http://127.0.0.1:8000/keys", "http://[::1]/keys"):
        assert ServeSettings.load(jwks_url=good).jwks_url == good


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


@pytest.mark.parametrize(
    "url",
    ["http://alice:{}@host:8080", "http://alice:{}@host/?x=1", "alice:{}@host:80", "http://alice:{}@[::1"],
)
@pytest.mark.parametrize("password", AWKWARD)
def test_nor_is_any_of_a_gateways(url, password):
    with pytest.raises(ConfigError, match="no user and password") as caught:
        checked_url(url.format(password))
    assert not [part for part in ("alice", "hunt", "er2", "12") if part in str(caught.value)]
