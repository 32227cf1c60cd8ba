"""What several test files need of the machine's network."""

import socket


def free_port() -> int:
    """A TCP port of this machine that nothing listens on now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]
