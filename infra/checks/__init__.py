"""`make check-infra`: whether what deploys the service is sound, as far as one can tell without an engine."""
