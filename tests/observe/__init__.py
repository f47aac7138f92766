"""Alerts as they ring: a real fleet that is hurt, a real Prometheus and Alertmanager that watch it."""
