"""The limit on open files. Each connection is one."""

import resource


def raise_descriptor_limit(wanted: int) -> int:
    """Raise the soft limit on open files to `wanted`, or as far as the hard limit (`ulimit -Hn`) allows.

    Returns the number of files that may then be open, at most `wanted`.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted
