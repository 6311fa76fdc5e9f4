"""`make check-infra`: checks of the files that deploy the service, as far as possible without a container engine."""
