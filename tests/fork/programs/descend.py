"""A chain or tree of processes which wait to be orphaned: subhost run descend.py HOW [LOOP]

HOW is what the leaves do: wait, sleep, spin, ignore, asyncio, finally. Below the program are
two processes, below each of them two, so 6; each says its pid on stdout. LOOP "asyncio": the
program itself runs an event loop with a listener, as the actor runtime did."""
import os
import sys
import threading
import time

import subhost


def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def leaf(how):
    if how != "asyncio":  # that says it when it serves
        say("pid", os.getpid())
    if how == "wait":
        while True:
            threading.Event().wait(1.0)
    if how == "sleep":
        time.sleep(600)
    if how == "spin":
        while True:
            pass
    if how == "ignore":
        while True:
            try:
                while True:
                    time.sleep(600)
            except BaseException:
                pass
    if how == "finally":
        try:
            time.sleep(600)
        finally:
            say("tidied", os.getpid())
    if how == "asyncio":
        import asyncio

        async def serve():
            server = await asyncio.start_server(print, "127.0.0.1", 0)
            try:
                say("pid", os.getpid())
                await server.serve_forever()
            except asyncio.CancelledError:
                say("tidied", os.getpid())
                raise

        asyncio.run(serve())


def spawner(how):
    say("pid", os.getpid())
    with subhost.open_nursery() as nursery:
        for _ in range(2):
            nursery.start(leaf, how, isolation="process")


def tree(how):
    with subhost.open_nursery() as nursery:
        for _ in range(2):
            nursery.start(spawner, how, isolation="process")


async def with_a_loop(how):
    import asyncio
    async with await asyncio.start_server(print, "127.0.0.1", 0):
        await asyncio.to_thread(tree, how)


if __name__ == "__main__":
    if len(sys.argv) > 2:
        import asyncio
        asyncio.run(with_a_loop(sys.argv[1]))
    else:
        tree(sys.argv[1])
