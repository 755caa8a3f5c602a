"""Descriptor tables at depth 1 to 4, with OPEN descriptors open in every parent."""
import os
import socket
import sys

import subhost
from common import descriptors, report

kept = []


def open_many(count, folder):
    """COUNT descriptors of all kinds, half of them inheritable through exec."""
    while len(kept) < count:
        for opened in (open(os.path.join(folder, f"file-{os.getpid()}-{len(kept)}"), "w"),
                       *socket.socketpair(), *(os.fdopen(fd, mode) for fd, mode in
                                               zip(os.pipe(), ("rb", "wb"))),
                       socket.create_server(("127.0.0.1", 0))):
            if len(kept) % 2:
                os.set_inheritable(opened.fileno(), True)
            kept.append(opened)


def table(depth, count, folder, want):
    mine = descriptors()
    report(depth=depth, pid=os.getpid(), table=mine)
    if depth < want:
        open_many(count, folder)
        with subhost.open_nursery() as nursery:
            nursery.start(table, depth + 1, count, folder, want, isolation="process")


if __name__ == "__main__":
    count, want, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    table(0, count, folder, want)
