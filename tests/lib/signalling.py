"""Programs that get signals once they say that they are ready."""

import concurrent.futures
import os
import signal
import time

from programs import PATIENCE, PYTHON, SUBHOST, spawn
from tap import difference, ok

INT, TERM, USR1, ALRM = signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGALRM
PROMPT = 1.5 * PATIENCE  # a signal acts "at once": well below every sleep in the programs
START = "import os, signal, sys, threading, time\ndef ready(): print('ready', flush=True)\n"

# A sanitizer's runtime handles the signals of crashes, to report them. This is for tests of
# what those signals do to a program.
CRASHES_AS_USUAL = {
    name: ":".join([os.environ.get(name, ""), "handle_segv=0", "handle_sigbus=0",
                    "handle_sigfpe=0", "handle_sigill=0", "handle_abort=0"]).lstrip(":")
    for name in ("ASAN_OPTIONS", "TSAN_OPTIONS")
}


def talk(runner, code, signals, pause=0.15):
    """Start CODE, wait until it says "ready", send SIGNALS one by one; the Result, with
    .late: how long after the last signal it ended."""
    with spawn([*runner, "-c", START + code]) as it:
        it.wait_for("ready")
        for number in signals:
            time.sleep(pause)
            it.signal(number)
        sent_at = time.monotonic()
        result = it.finish(15)
        result.late = it.started + result.seconds - sent_at
        return result


def sent(code, *signals, options=(), **kw):
    return talk([SUBHOST, "run", *options], code, signals, **kw)


def same_when_sent(code, *signals, name, status=None, stderr=True, **kw):
    """As same(), with SIGNALS sent once the program is ready. STDERR False compares only its
    last line: how deep in the library a traceback begins is a matter of luck."""
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        mine, theirs = pool.map(lambda runner: talk(runner, code, signals, **kw),
                                ([SUBHOST, "run"], [PYTHON]))

    def seen(result):
        return f"{result.out}\n{result.err if stderr else result.last}\nstatus {result.status}"

    ok(seen(mine) == seen(theirs) and status in (None, theirs.status), name + ": as python",
       difference=difference(seen(mine), seen(theirs)), subhost=mine, expected=status)
