#!/usr/bin/env python3
# timeout: 150
"""The signal module: handlers, alarms, masks, waiting, asyncio, and what children inherit."""
import pathlib
import signal
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from signalling import CRASHES_AS_USUAL, INT, START, TERM, USR1, same_when_sent
from tap import equal, hosted, main, ok, same, script, subhost, test


@test
def dispositions(tmp):
    same("-c", "import signal\nfor s in sorted(signal.valid_signals()):\n"
         "    h = signal.getsignal(s); print(s, getattr(h, '__name__', h))",
         name="signal.getsignal at the start", status=0, env=CRASHES_AS_USUAL)
    same("-c", """
import signal
print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)
def f(*a): pass
for s in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGALRM, signal.SIGCHLD,
          signal.SIGHUP, signal.SIGPIPE, signal.SIGRTMIN + 1):
    for new in (f, signal.SIG_IGN, signal.SIG_DFL, f):
        old = signal.signal(s, new)
        print(s, getattr(old, '__name__', old), signal.getsignal(s) == new)
try:
    signal.default_int_handler(2, None)
except KeyboardInterrupt as e:
    print('KeyboardInterrupt', e.args)
""", name="signal.signal, round trips", status=0)
    errors = """
import signal, threading
def attempt(function, *args):
    try:
        print(function(*args))
    except BaseException as e:
        print(type(e).__name__, e)
attempt(signal.signal, 0, signal.SIG_DFL)
attempt(signal.signal, 65, signal.SIG_DFL)
attempt(signal.signal, -1, signal.SIG_DFL)
attempt(signal.signal, signal.SIGKILL, signal.SIG_IGN)
attempt(signal.signal, signal.SIGSTOP, print)
attempt(signal.signal, signal.SIGINT, 5)
attempt(signal.signal, signal.SIGINT, None)
attempt(signal.signal, "x", print)
attempt(signal.signal)
attempt(signal.getsignal, 0)
attempt(signal.getsignal, 99)
attempt(signal.raise_signal, 99)
attempt(signal.set_wakeup_fd, 99)
attempt(signal.set_wakeup_fd, "x")
attempt(signal.set_wakeup_fd, 1)
attempt(signal.set_wakeup_fd, -1)
attempt(signal.setitimer, 99, 1)
attempt(signal.siginterrupt, 0, True)
attempt(signal.alarm, 0)
attempt(signal.getitimer, signal.ITIMER_REAL)
"""
    same("-c", errors, name="wrong arguments", status=0)
    same("-c", "import threading\n" + errors.replace("\nattempt(", "\n#(", 0)
         + "t = threading.Thread(target=lambda: (attempt(signal.signal, 10, print),\n"
         "    attempt(signal.set_wakeup_fd, -1), attempt(signal.getsignal, 10)))\n"
         "t.start(); t.join()", name="on another thread signal.signal is a ValueError", status=0)


@test
def handlers(tmp):
    same_when_sent("""
def handler(number, frame):
    print(number, type(number), type(frame), frame.f_code.co_name,
          threading.current_thread() is threading.main_thread())
def work():
    end = time.monotonic() + 0.4
    while time.monotonic() < end: pass
signal.signal(signal.SIGUSR1, handler)
ready(); work(); print('over')
""", USR1, name="a handler gets (signum, frame) on the main thread", status=0)
    same_when_sent("""
signal.signal(signal.SIGUSR1, lambda *a: print('handler'))
ready()
started = time.monotonic()
time.sleep(0.5)
print(time.monotonic() - started >= 0.5)
""", USR1, name="PEP 475: time.sleep goes on to its full time", status=0)
    same_when_sent("""
signal.signal(signal.SIGUSR1, lambda *a: print('handler'))
r, w = os.pipe()
threading.Timer(0.4, lambda: os.write(w, b'data')).start()
ready(); print(os.read(r, 10))
""", USR1, name="PEP 475: os.read goes on", status=0)
    same_when_sent("""
import select
r, w = os.pipe()
signal.signal(signal.SIGUSR1, lambda *a: os.write(w, b'x'))
epoll = select.epoll()
epoll.register(r, select.EPOLLIN | select.EPOLLONESHOT)
ready(); print(epoll.poll(3) == [(r, select.EPOLLIN)])
""", USR1, name="PEP 475: epoll goes on, and tells what is told once", status=0)
    same_when_sent("""
count = 0
def handler(*a):
    global count
    count += 1
    print('interrupt', count, flush=True)
    if count == 3: sys.exit(6)
signal.signal(signal.SIGINT, handler)
ready()
while True: time.sleep(0.05)
""", INT, INT, INT, name="a SIGINT handler of its own takes them all", status=6)
    same_when_sent("signal.signal(signal.SIGTERM, lambda *a: sys.exit(7))\n"
                   "try:\n    ready(); time.sleep(60)\nfinally: print('finally')", TERM,
                   name="a SIGTERM handler that exits", status=7)
    same_when_sent("signal.signal(signal.SIGTERM, signal.default_int_handler)\n"
                   "ready(); time.sleep(60)", TERM, name="default_int_handler for SIGTERM")
    same_when_sent("signal.signal(signal.SIGINT, signal.SIG_IGN)\nready(); time.sleep(0.5)\n"
                   "print('on')", INT, name="SIG_IGN for SIGINT", status=0)
    same_when_sent("signal.signal(signal.SIGTERM, signal.SIG_IGN)\nready(); time.sleep(0.5)\n"
                   "print('on')", TERM, name="SIG_IGN for SIGTERM", status=0)
    same_when_sent("signal.signal(signal.SIGINT, signal.SIG_DFL)\n"
                   "try:\n    ready(); time.sleep(60)\nfinally: print('never')", INT, status=130,
                   name="SIG_DFL for SIGINT: dies without finally")
    same_when_sent("old = signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
                   "signal.signal(signal.SIGINT, old)\nready(); time.sleep(60)", INT, status=130,
                   name="SIGINT handler put back")
    same_when_sent("def f(*a): 1 / 0\nsignal.signal(signal.SIGUSR1, f)\n"
                   "try:\n    ready(); time.sleep(60)\n"
                   "except ZeroDivisionError: print('from handler')", USR1, status=0,
                   name="a handler that raises")
    same_when_sent("def f(*a): raise ValueError('uncaught')\nsignal.signal(signal.SIGUSR1, f)\n"
                   "ready(); time.sleep(60)", USR1, status=1,
                   name="a handler that raises, uncaught")
    same_when_sent("signal.signal(signal.SIGUSR1, lambda *a: print('main'))\n"
                   "t = threading.Thread(target=time.sleep, args=(0.5,)); t.start()\n"
                   "ready(); t.join(); print('joined')", USR1, name="a handler during Thread.join")
    same_when_sent("signal.signal(signal.SIGUSR1, lambda *a: None)\n"
                   "signal.siginterrupt(signal.SIGUSR1, False)\nready(); time.sleep(0.4)\n"
                   "print('on')", USR1, name="siginterrupt", status=0)
    same("-c", """
import os, signal, subprocess, sys, time
seen = []
signal.signal(signal.SIGCHLD, lambda *a: seen.append(os.waitpid(-1, os.WNOHANG)[1]))
p = subprocess.Popen([sys.executable, '-c', 'raise SystemExit(9)'])
end = time.monotonic() + 10
while not seen and time.monotonic() < end: time.sleep(0.02)
print([os.waitstatus_to_exitcode(s) for s in seen])
""", name="a SIGCHLD handler reaps", status=0)
    same("-c", """
import os, signal, time
signal.signal(signal.SIGWINCH, lambda *a: print('resized'))
os.kill(os.getpid(), signal.SIGWINCH); time.sleep(0.1)
signal.signal(signal.SIGRTMIN + 3, lambda n, f: print(n - signal.SIGRTMIN))
os.kill(os.getpid(), signal.SIGRTMIN + 3); time.sleep(0.1)
""", name="SIGWINCH and a real-time signal", status=0)
    result = subhost("run", "-c", """
import os, signal, time
count = 0
def handler(*a):
    global count
    count += 1
signal.signal(signal.SIGUSR1, handler)
for _ in range(2000): os.kill(os.getpid(), signal.SIGUSR1)
time.sleep(0.1)
print(count > 0)
""")
    equal((result.status, result.out), (0, "True\n"), "a storm of signals", result=result)


@test
def sent_by_the_program_itself(tmp):
    for name, send in (("os.kill", "os.kill(os.getpid(), signal.SIGUSR1)"),
                       ("raise_signal", "signal.raise_signal(signal.SIGUSR1)"),
                       ("pthread_kill",
                        "signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)"),
                       ("killpg", "os.killpg(0, signal.SIGUSR1)")):
        # The handler has run before the next statement, every time.
        same("-c", START + "n = 0\ndef f(*a):\n    global n; n += 1\n"
             "signal.signal(signal.SIGUSR1, f)\nfor i in range(1, 101):\n    "
             + send + "\n    if n != i: print('late', i, n); break\nprint('after', n)",
             name=name, status=0)
        same("-c", START + send.replace("USR1", "USR2") + "\ntime.sleep(5)", status=140,
             name=name + " without a handler")
    same("-c", START + "try:\n    signal.raise_signal(signal.SIGINT); time.sleep(5)\n"
         "except KeyboardInterrupt: print('caught')", name="raise_signal(SIGINT)", status=0)
    same("-c", START + "os.kill(os.getpid(), signal.SIGINT)\ntime.sleep(5)", status=130,
         name="os.kill(SIGINT)", clean=lambda text: text and text.splitlines()[-1])
    same("-c", "import _thread, time\ntry:\n    _thread.interrupt_main(); time.sleep(5)\n"
         "except KeyboardInterrupt: print('caught')", name="_thread.interrupt_main", status=0)
    for send in ("os.kill(os.getpid(), 10)", "_thread.interrupt_main(10)",
                 "signal.pthread_kill(threading.main_thread().ident, 10)"):
        # The main thread has run the handler by the time that it knows that the other ended.
        same("-c", START + "import _thread\nseen = []\n"
             "signal.signal(10, lambda *a: seen.append(1))\n"
             f"def send(): {send}\nfor i in range(1, 51):\n"
             "    t = threading.Thread(target=send); t.start(); t.join()\n"
             "    if len(seen) != i: print('late', i, len(seen)); break\nprint('after')", status=0,
             name=f"{send.split('(')[0]} on another thread, then join")
    same("-c", "import ctypes; ctypes.string_at(0)", name="SIGSEGV", status=139,
         env=CRASHES_AS_USUAL)


@test
def alarms(tmp):
    start = START + "class Late(Exception): pass\ndef late(*a): raise Late\n"
    start += "signal.signal(signal.SIGALRM, late)\n"
    for name, code in {
        "time.sleep": "time.sleep(60)",
        "a busy loop": "while True: pass",
        "os.read": "os.read(os.pipe()[0], 1)",
        "Event.wait": "threading.Event().wait()",
        "select": "import select; select.select([], [], [])",
        "subprocess": "import subprocess; subprocess.run(['sleep', '5'])",
    }.items():
        same("-c", start + "signal.setitimer(signal.ITIMER_REAL, 0.2)\nt = time.monotonic()\n"
             f"try:\n    {code.replace(chr(10), chr(10) + '    ')}\n"
             "except Late: print('late', 0.2 <= time.monotonic() - t < 3)",
             name=f"setitimer ends {name}", status=0)
    same("-c", start + "signal.alarm(1)\ntry: time.sleep(60)\nexcept Late: print('late')",
         name="signal.alarm", status=0)
    same("-c", START + "print(signal.alarm(100), signal.alarm(0))\n"
         "print(signal.setitimer(signal.ITIMER_REAL, 50, 7))\n"
         "a, b = signal.getitimer(signal.ITIMER_REAL); print(round(a), b)\n"
         "signal.setitimer(signal.ITIMER_REAL, 0); print(signal.getitimer(signal.ITIMER_REAL))",
         name="alarm and setitimer return what was left", status=0)
    same("-c", START + "n = []\nsignal.signal(signal.SIGALRM, lambda *a: n.append(1))\n"
         "signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)\nwhile len(n) < 4: time.sleep(1)\n"
         "signal.setitimer(signal.ITIMER_REAL, 0)\nprint('four')", name="an interval", status=0)
    for which, number in (("VIRTUAL", "VTALRM"), ("PROF", "PROF")):
        same("-c", START + f"n = []\nsignal.signal(signal.SIG{number}, lambda *a: n.append(1))\n"
             f"signal.setitimer(signal.ITIMER_{which}, 0.05)\nwhile not n: pass\nprint('fired')",
             name=f"ITIMER_{which}", status=0)
    same("-c", START + "signal.alarm(1); time.sleep(5)", name="SIGALRM without a handler",
         status=142)


@test
def waiting(tmp):
    same_when_sent("signal.signal(signal.SIGUSR1, lambda *a: print('handler'))\n"
                   "ready(); signal.pause(); print('on')", USR1, name="signal.pause", status=0)
    same_when_sent("signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])\n"
                   "ready(); print(signal.sigwait([signal.SIGUSR1]))", USR1, status=0,
                   name="sigwait of a blocked signal")
    same_when_sent("signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])\nready()\n"
                   "i = signal.sigwaitinfo([signal.SIGUSR1]); print(i.si_signo, i.si_pid > 0)",
                   USR1, name="sigwaitinfo", status=0)
    same("-c", START + "print(signal.pthread_sigmask(signal.SIG_BLOCK, []))\n"
         "print(signal.pthread_sigmask(signal.SIG_BLOCK, [10, 12]))\n"
         "print(signal.pthread_sigmask(signal.SIG_UNBLOCK, [10]))\n"
         "print(signal.pthread_sigmask(signal.SIG_SETMASK, []))\n"
         "print(signal.pthread_sigmask(signal.SIG_BLOCK, []), signal.sigpending())",
         name="pthread_sigmask", status=0)
    same("-c", START + "signal.pthread_sigmask(signal.SIG_BLOCK, [10])\n"
         "print(signal.sigtimedwait([10], 0.1))", name="sigtimedwait in vain", status=0)
    same("-c", START + "signal.signal(10, lambda *a: print('handler'))\n"
         "signal.pthread_sigmask(signal.SIG_BLOCK, [10])\nos.kill(os.getpid(), 10)\n"
         "time.sleep(0.2)\nprint('held back', signal.sigpending())\n"
         "signal.pthread_sigmask(signal.SIG_UNBLOCK, [10])\ntime.sleep(0.2)\nprint('after')",
         name="a blocked signal waits", status=0)
    same_when_sent("""
r, w = os.pipe()
os.set_blocking(w, False)
print(signal.set_wakeup_fd(w), signal.set_wakeup_fd(w) == w)
signal.signal(signal.SIGUSR1, lambda *a: None)
ready()
print(os.read(r, 10), signal.set_wakeup_fd(-1) == w)
""", USR1, name="set_wakeup_fd gets a byte", status=0)
    same_when_sent("""
import select, socket
a, b = socket.socketpair()
b.setblocking(False)
signal.set_wakeup_fd(b.fileno())
signal.signal(signal.SIGUSR1, lambda *a: None)
signal.signal(signal.SIGTERM, lambda *a: None)
ready()
seen = b''
while len(seen) < 2:
    select.select([a], [], [])
    seen += a.recv(10)
print(sorted(seen))
""", USR1, TERM, name="a wakeup socket in select()", status=0)


@test
def asyncio_programs(tmp):
    same_when_sent("""
import asyncio
async def f():
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, stop.set)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, print, 'term')
    ready()
    await stop.wait()
    print('stopped', asyncio.get_running_loop().remove_signal_handler(signal.SIGUSR1))
asyncio.run(f())
""", TERM, USR1, name="loop.add_signal_handler", status=0)
    same_when_sent("""
import asyncio
async def f():
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, stop.set)
    ready()
    await stop.wait()
    print('stopped')
asyncio.run(f())
""", INT, name="loop.add_signal_handler for SIGINT", status=0)
    same_when_sent("""
import asyncio
async def f():
    ready()
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        print('CancelledError in the task')
        await asyncio.sleep(0.01)
        raise
try:
    asyncio.run(f())
except KeyboardInterrupt:
    print('KeyboardInterrupt outside')
    sys.exit(8)
""", INT, name="asyncio.run: CancelledError inside, KeyboardInterrupt outside", status=8)
    same_when_sent("""
import asyncio
async def f():
    ready()
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        return 'own end'
print(asyncio.run(f()))
""", INT, name="asyncio.run: the task ends by itself")
    same("-c", """
import asyncio, sys
async def f():
    ps = [await asyncio.create_subprocess_exec(sys.executable, '-c', f'raise SystemExit({n})')
          for n in range(4)]
    print(await asyncio.gather(*(p.wait() for p in ps)))
asyncio.run(f())
""", name="asyncio reaps children", status=0)


@test
def children(tmp):
    show = ("import re; print(re.findall('Sig(?:Blk|Ign|Cgt|Pnd).*',"
            " open('/proc/self/status').read()))")
    plain = "grep -E '^Sig(Blk|Ign|Cgt)' /proc/self/status"
    for name, start in {
        "subprocess.run": f"subprocess.run(['sh', '-c', {plain!r}])",
        "a python": f"subprocess.run([sys.executable, '-c', {show!r}])",
        "os.system": f"os.system({plain!r})",
        "posix_spawn": f"p = os.posix_spawn('/bin/sh', ['sh', '-c', {plain!r}], os.environ)\n"
                       "os.waitpid(p, 0)",
        "restore_signals=False": f"subprocess.run(['sh', '-c', {plain!r}], restore_signals=False)",
        "a thread": "t = threading.Thread(target=subprocess.run,\n"
                    f"    args=(['sh', '-c', {plain!r}],))\nt.start(); t.join()",
        "start_new_session": f"subprocess.run(['sh', '-c', {plain!r}], start_new_session=True)",
        "after SIG_IGN": "signal.signal(10, signal.SIG_IGN)\n"
                         f"subprocess.run(['sh', '-c', {plain!r}])",
        "after a handler": f"signal.signal(10, print)\nsubprocess.run(['sh', '-c', {plain!r}])",
        "after a mask": "signal.pthread_sigmask(signal.SIG_BLOCK, [10])\n"
                        f"subprocess.run(['sh', '-c', {plain!r}])",
        "os.execv": f"os.execv('/bin/sh', ['sh', '-c', {plain!r}])",
    }.items():
        same("-c", "import os, signal, subprocess, sys, threading\n" + start, status=0,
             name=f"mask and dispositions of a child, {name}")
    same("-c", "import subprocess\np = subprocess.Popen(['sleep', '60'])\np.terminate()\n"
         "print(p.wait())\np = subprocess.Popen(['sleep', '60'])\np.send_signal(2)\n"
         "print(p.wait())",
         name="children die of SIGTERM and SIGINT", status=0)


@test
def several_workers(tmp):
    file = script(tmp, """
        import os, signal, subhost, time
        me = subhost.current().worker  # numbered from 0 or from 1
        got = []
        signal.signal(signal.SIGRTMIN + 1 + me % 2, lambda *a: got.append(1))
        print("ready", flush=True)
        end = time.monotonic() + 10
        while not got and time.monotonic() < end: time.sleep(0.02)
        print("got" if got else "missed", flush=True)
    """, "own.py")
    with hosted("-n", "2", file) as it:
        it.wait_for("ready", times=2)
        for number in (0, 1):
            it.signal(signal.SIGRTMIN + 1 + number)
        result = it.finish(15)
        ok(result.out.count("got") == 2, "a handler belongs to the interpreter that set it",
           result=result)
    file = script(tmp, """
        import signal, subhost, time
        me = subhost.current().worker
        if me == 0:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        time.sleep(0.3)  # of a child's the runner hears a little later
        print("ready", flush=True)
        time.sleep(0.5 if me == 0 else 60)
        print("end of", me, flush=True)
    """, "deaf.py")
    for isolation in "interpreter", "process":
        with hosted("-n", "2", "--isolation", isolation, file) as it:
            it.wait_for("ready", times=2)
            it.signal(signal.SIGINT)
            result = it.finish(15)
        equal((result.status, result.out.count("end of 0"), result.out.count("end of")),
              (130, 1, 1), f"{isolation}: SIG_IGN is for the interpreter that set it",
              result=result)
    file = script(tmp, """
        import signal, subhost, time
        if subhost.current().worker == 0:
            signal.signal(signal.SIGALRM, print)
            signal.setitimer(signal.ITIMER_REAL, 0.3)
        else:
            time.sleep(0.5)
    """, "armed.py")
    result = subhost("run", "-n", "2", file)
    equal((result.status, result.out), (0, ""), "a timer ends with its program", result=result)
    file = script(tmp, """
        import signal, subhost, time
        def wait():
            print("ready", flush=True)
            time.sleep(0.5)
        if __name__ == "__main__":
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            with subhost.open_nursery() as nursery:
                nursery.start(wait)
            print("end")
    """, "inherited.py")
    with hosted(file) as it:
        it.wait_for("ready")
        it.signal(signal.SIGINT)
        result = it.finish(15)
    equal((result.status, result.out), (0, "ready\nend\n"), "and for its tasks", result=result)


main()
