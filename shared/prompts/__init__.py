"""The life of a prompt, from submission to completion; its feed and its queries."""
