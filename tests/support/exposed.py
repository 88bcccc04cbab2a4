"""What a running proxy says of itself at `/metrics`."""

from __future__ import annotations

import urllib.request

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from support.proxy_process import ProxyProcess


class Exposed:
    """One scrape."""

    def __init__(self, proxy: ProxyProcess) -> None:
        url = f"http://127.0.0.1:{proxy.admin_port}/metrics"
        with urllib.request.urlopen(url, timeout=30) as answer:
            text = answer.read().decode()
        self._families: list[Metric] = list(text_string_to_metric_families(text))

    def total(self, name: str, **labels: str) -> float:
        """The sum of all samples of that name with these labels among theirs."""
        return sum(
            sample.value
            for family in self._families
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def by(self, label: str, name: str, **labels: str) -> dict[str, float]:
        """Totals for each value of `label`, those that are 0 left out."""
        values = {
            sample.labels[label]
            for family in self._families
            for sample in family.samples
            if sample.name == name and sample.value
        }
        totals = {value: self.total(name, **{label: value}, **labels) for value in sorted(values)}
        return {value: total for value, total in totals.items() if total}
