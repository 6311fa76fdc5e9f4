"""Dashboards, alerts, and metrics for CloudWatch."""
