"""How Promptwire is run: on this machine (`infra.local`), in containers, in a cloud."""
