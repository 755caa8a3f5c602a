#!/usr/bin/env python3
# timeout: 60
"""`wakeup-eof`: a wakeup descriptor whose other end is closed costs neither CPU nor signals,
on either side: not in the host that writes to it, not in a program that reads from it."""
import pathlib
import signal
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from tap import equal, hosted, main, ok, test

START = """
import os, signal, socket, sys, time
def used():
    t = os.times(); return t.user + t.system
got = []
signal.signal(signal.SIGUSR2, lambda *a: got.append(1))
mine, peer = socket.socketpair()
mine.setblocking(False); peer.setblocking(False)
"""
WATCH = """
print("ready", flush=True)
while len(got) < 3: time.sleep(0.05)  # two that come close to one another are one
cpu = used(); time.sleep(1); cpu = used() - cpu
print("cpu", "low" if cpu < 0.3 else cpu, flush=True)
"""


def five_signals(code):
    with hosted("-c", START + code + WATCH) as it:
        it.wait_for("ready")
        for _ in range(5):
            it.signal(signal.SIGUSR2)
            time.sleep(0.1)
        return it.finish()


@test
def the_peer_is_closed(tmp):
    for name, code in {
        "the peer is closed": "signal.set_wakeup_fd(mine.fileno()); peer.close()",
        "its writing side is shut down":
            "signal.set_wakeup_fd(mine.fileno()); mine.shutdown(socket.SHUT_WR)",
        "the descriptor itself is closed":
            "signal.set_wakeup_fd(mine.fileno()); mine.close()",
        "a pipe that nobody reads":
            "r, w = os.pipe(); os.set_blocking(w, False); os.set_blocking(r, False)\n"
            "signal.set_wakeup_fd(w); os.close(r)",
        "a pipe that is full":
            "r, w = os.pipe(); os.set_blocking(w, False)\n"
            "try:\n    while True: os.write(w, bytes(65536))\n"
            "except BlockingIOError: pass\n"
            "signal.set_wakeup_fd(w)",
    }.items():
        result = five_signals(code)
        equal((result.out.split("\n")[1:], result.status), (["cpu low", ""], 0),
              f"{name}: signals arrive, no CPU is spent", result=result)


@test
def the_program_drains_it(tmp):
    # As asyncio does; the reader must see the end of the file once, not for ever.
    result = five_signals("""
import asyncio, threading
signal.set_wakeup_fd(mine.fileno())
peer.close()
async def tick():
    while True: await asyncio.sleep(0.05)
threading.Thread(target=asyncio.run, args=(tick(),), daemon=True).start()
""")
    equal((result.out.split("\n")[1:], result.status), (["cpu low", ""], 0),
          "with an event loop in another thread", result=result)
    with hosted("-c", START + """
import asyncio
async def main():
    loop = asyncio.get_running_loop()
    done = asyncio.Event()
    loop.add_signal_handler(signal.SIGUSR1, lambda: (got.append(1), done.set()))
    print("ready", flush=True)
    await done.wait()
    loop._csock.close()   # the other end of its own wakeup descriptor
    cpu = used(); await asyncio.sleep(1); cpu = used() - cpu
    print("cpu", "low" if cpu < 0.3 else cpu, flush=True)
asyncio.run(main())
""") as it:
        it.wait_for("ready")
        it.signal(signal.SIGUSR1)
        result = it.finish()
    ok("ready\n" in result.out and result.status in (0, 1), "asyncio with a broken self-pipe "
       "ends", result=result)


main()
