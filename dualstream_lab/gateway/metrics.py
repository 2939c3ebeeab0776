"""The gateway's metrics for Prometheus; messaging names are OpenTelemetry's (in development there)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from prometheus_client import Metric

    from dualstream_lab.gateway.clients import ConnectionLimit
    from dualstream_lab.gateway.health import Health
    from dualstream_lab.gateway.hub import Hub

_TEMPLATE: Final = "events:{source_type}:{source_id}"  # never a channel itself: there are too many
_BUCKETS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


class Metrics(Collector):
    """Reads the counters when they are asked for. :attr:`registry` takes those of other parts, too."""

    def __init__(self, hub: Hub, limit: ConnectionLimit, health: Health) -> None:
        self._hub = hub
        self._limit = limit
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
        """The metrics in Prometheus' text format."""
        return generate_latest(self.registry)

    def collect(self) -> Iterator[Metric]:
        """As :class:`Collector`."""
        hub, limit = self._hub, self._limit
        for name, about, system, count in (
            ("consumed", "Notifications received on Redis", "redis", hub.stats.received),
            ("sent", "Messages told to clients", "websocket_sse", hub.stats.sent),
        ):
            labels = ["messaging_system", "messaging_destination_template"]
            messages = CounterMetricFamily(f"messaging_client_{name}_messages", about, labels=labels)
            messages.add_metric([system, _TEMPLATE], count)
            yield messages
        about = "Clients that could not be caught up"
        refused = CounterMetricFamily("dualstream_recoveries_refused", about, labels=["reason"])
        for reason, count in hub.stats.refused.items():
            refused.add_metric([reason], count)
        yield refused
        for name, about, value in (
            ("joined", "Sources that clients began to follow", hub.stats.joined),
            ("recovered_events", "Events that Redis lost and comparing found", hub.repairs.late),
            ("unrecognized_messages", "Messages on Redis that are none of ours", hub.stats.unrecognized),
            ("other_epoch_notifications", "Messages on Redis about another log", hub.stats.other_epoch),
            ("bare_notifications", "Those that do not say where their event is", hub.stats.bare),
            ("notifications_beyond_end", "Those of events that Kafka does not have", hub.claims.beyond),
            ("comparisons", "Looks into the store for lost events", hub.repairs.looks),
            ("slow_clients", "Clients closed for slowness", limit.slow),
            ("redis_connects", "Connections made to Redis", hub.upstream.connects if hub.upstream else 0),
        ):
            yield CounterMetricFamily(f"dualstream_{name}", about, value=value)
        feeds = hub.feeds.values()
        for name, about, value in (
            ("clients", "Connected clients", limit.used),
            ("clients_waiting_bytes", "Bytes that wait for slow clients", limit.backlog_bytes()),
            ("sources", "Sources that are followed", len(feeds)),
            ("degraded_sources", "Sources served from the store", sum(1 for feed in feeds if feed.degraded)),
            ("redis_up", "Whether Redis is connected", int(hub.upstream is not None and hub.upstream.up)),
        ):
            yield GaugeMetricFamily(f"dualstream_{name}", about, value=value)
        yield from self._delivery()

    def _delivery(self) -> Iterator[Metric]:
        """Metrics of how far the store is behind Kafka, and of the processors that fill it."""
        health = self._health
        lag = health.lag
        for name, about, lags in (
            ("messages", "Messages of the log that the store lacks", lag.messages),
            ("seconds", "For how long the log has had them", {p: lag.seconds(p) for p in lag.messages}),
        ):
            family = GaugeMetricFamily(f"dualstream_store_lag_{name}", about, labels=["partition"])
            for partition, behind in sorted(lags.items()):
                family.add_metric([str(partition)], behind)
            yield family
        for name, about, value in (
            ("feeders", "Processors that feed the store", len(health.feeders)),
            ("partitions_in_trouble", "Partitions that they cannot read on in", health.troubled_partitions),
            ("held_messages", "Messages that open transactions hold back", sum(health.held.values())),
            ("processor_up", "Whether what is published comes into the store", health.processor() == "up"),
        ):
            yield GaugeMetricFamily(f"dualstream_{name}", about, value=value)
