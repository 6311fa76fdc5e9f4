"""`make compose-test`: deploy the service with Docker Compose as docs/deployment.md says, and disturb it.

It runs on the Docker engine of this machine. Where there is none, a temporary one is unpacked from Debian's packages
and runs in namespaces of its own, with stand-ins for the base images (`engine.py`, `stand_ins.py`). `scenario.py` is
the test itself.
"""
