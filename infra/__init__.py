"""How Promptwire runs: on this machine (`infra.local`), in containers, on AWS."""
