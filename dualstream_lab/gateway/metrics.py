"""The gateway's metrics for Prometheus; messaging names are OpenTelemetry's (in development there)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client import Metric

    from dualstream_lab.gateway.clients import Seats
    from dualstream_lab.gateway.health import Health
    from dualstream_lab.gateway.hub import Hub

__all__ = ["Metrics"]

_TEMPLATE: Final = "events:{source_type}:{source_id}"  # never a channel itself: there are too many
_BUCKETS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


class Metrics(Collector):
    """Reads the counters when they are asked for. :attr:`registry` takes those of other parts, too."""

    def __init__(self, hub: Hub, seats: Seats, health: Health) -> None:
        self._hub = hub
        self._seats = seats
        self._health = health
        self.registry = CollectorRegistry()
        self.registry.register(self)
        latency = Histogram(
            "dualstream_delivery_latency_seconds",
            "From Kafka's acknowledgement to the write to clients; one sample a write",
            buckets=_BUCKETS,
            registry=self.registry,
        )
        hub.stats.latency = latency.observe

    def text(self) -> bytes:
        """The exposition."""
        return generate_latest(self.registry)

    def collect(self) -> Iterator[Metric]:
        """As :class:`Collector`."""
        hub, seats = self._hub, self._seats
        labels = ["messaging_system", "messaging_destination_template"]
        consumed = CounterMetricFamily(
            "messaging_client_consumed_messages", "Notifications heard on Redis", labels=labels
        )
        consumed.add_metric(["redis", _TEMPLATE], hub.stats.heard)
        sent = CounterMetricFamily(
            "messaging_client_sent_messages", "Messages told to clients", labels=labels
        )
        sent.add_metric(["websocket_sse", _TEMPLATE], hub.stats.told)
        yield consumed
        yield sent
        refused = CounterMetricFamily(
            "dualstream_recoveries_refused", "Clients that could not be caught up", labels=["reason"]
        )
        for reason, count in hub.stats.refused.items():
            refused.add_metric([reason], count)
        yield refused
        for name, about, value in (
            ("joined", "Sources that clients began to follow", hub.stats.joined),
            ("late_events", "Events that Redis lost and comparing found", hub.repairs.late),
            ("unrecognized_messages", "Messages on Redis that are none of ours", hub.stats.unrecognized),
            ("foreign_notifications", "Messages on Redis about another log", hub.stats.foreign),
            ("bare_notifications", "Those that do not say where their event is", hub.stats.bare),
            ("notifications_beyond_end", "Those of events that Kafka does not have", hub.claims.beyond),
            ("comparisons", "Looks into the store for lost events", hub.repairs.looks),
            ("slow_clients", "Clients closed for slowness", seats.slow),
            ("redis_connects", "Connections made to Redis", hub.upstream.connects if hub.upstream else 0),
        ):
            yield CounterMetricFamily(f"dualstream_{name}", about, value=value)
        feeds = hub.feeds.values()
        for name, about, value in (
            ("clients", "Connected clients", seats.used),
            ("clients_waiting_bytes", "Bytes that wait for slow clients", seats.backlog.look()),
            ("sources", "Sources that are followed", len(feeds)),
            ("degraded_sources", "Sources served from the store", sum(1 for feed in feeds if feed.degraded)),
            ("redis_up", "Whether Redis is connected", int(hub.upstream is not None and hub.upstream.up)),
        ):
            yield GaugeMetricFamily(f"dualstream_{name}", about, value=value)
        yield from self._delivery()

    def _delivery(self) -> Iterator[Metric]:
        """How what is in Kafka comes into the store."""
        health = self._health
        messages = GaugeMetricFamily(
            "dualstream_store_lag_messages", "Messages of the log that the store lacks", labels=["partition"]
        )
        seconds = GaugeMetricFamily(
            "dualstream_store_lag_seconds", "For how long the log has had them", labels=["partition"]
        )
        for partition, count in sorted(health.lag.messages.items()):
            messages.add_metric([str(partition)], count)
            seconds.add_metric([str(partition)], health.lag.seconds(partition))
        yield messages
        yield seconds
        for name, about, value in (
            ("feeders", "Processors that feed the store", len(health.feeders)),
            ("partitions_in_trouble", "Partitions that they cannot read on in", health.troubled_partitions),
            ("held_messages", "Messages that open transactions hold back", sum(health.held.values())),
            ("processor_up", "Whether what is published comes into the store", health.processor() == "up"),
        ):
            yield GaugeMetricFamily(f"dualstream_{name}", about, value=value)
