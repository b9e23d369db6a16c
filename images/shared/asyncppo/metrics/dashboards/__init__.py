"""Grafana dashboards as code: each module makes one file of the chart. Their queries name metrics by the catalogue's own entries."""
