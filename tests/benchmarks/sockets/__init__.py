"""Ten thousand sockets on one API process: `make benchmark NAME=sockets`."""
