"""Runs commands of the client in forks, on request of `forks.py`. It imports nothing but the client."""

import gc
import json
import os
import select
import socket
import sys

from api.client import Client, __main__

#: More than a command's arguments and its environment.
_MAX_MESSAGE = 1_000_000


def _serve(requests: socket.socket) -> None:
    """Fork for each request, and tell the id and the exit code of each fork. Returns in the forks."""
    clients: dict[int, tuple[int, socket.socket]] = {}  # by a file descriptor that is readable when the fork has ended
    while True:
        for ready in select.select([requests, *clients], [], [])[0]:
            if ready is requests:
                message, files, _, _ = socket.recv_fds(requests, _MAX_MESSAGE, 4)
                if not message:
                    sys.exit()
                pid = os.fork()
                if pid == 0:
                    _become(*json.loads(message), files)
                    return
                client = socket.socket(fileno=files.pop())
                for file in files:
                    os.close(file)
                clients[os.pidfd_open(pid)] = pid, client
                client.send(str(pid).encode())
            else:
                os.close(ready)
                pid, client = clients.pop(ready)
                _, status = os.waitpid(pid, 0)
                with client:
                    client.send(str(os.waitstatus_to_exitcode(status)).encode())


def _become(command: list[str], environment: dict[str, str], files: list[int]) -> None:
    """Take over the files, the environment and the arguments of a new process."""
    for number, file in enumerate(files[:3]):
        os.dup2(file, number)
    for file in files:
        os.close(file)
    os.environ.clear()
    os.environ.update(environment)
    sys.modules["__main__"] = __main__  # which the help texts name
    sys.argv = [__main__.__file__, *command]


if __name__ == "__main__":
    Client("http://localhost").close()  # which imports the rest
    gc.freeze()  # or collections would copy the memory that the forks share
    _serve(socket.socket(fileno=int(sys.argv[1])))
    sys.exit(__main__.run())
