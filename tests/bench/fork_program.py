"""The contestants of tests/bench/fork: python fork_program.py NAME, subhost run fork_program.py NAME

Reads a number of measurements a line on stdin, answers with a line of milliseconds. Every
measurement is fork + run + join of a function that does nothing, up to its end as its parent
sees it: by waitpid, a pidfd or a message, never by polling. multiprocessing runs this file
again in its children, so it imports little."""
import os
import sys
import time


def nothing():
    pass


def os_fork():
    pid = os.fork()
    if not pid:
        nothing()
        os._exit(0)
    os.waitpid(pid, 0)


def multiprocess(method):
    import multiprocessing
    context = multiprocessing.get_context(method)

    def once():
        process = context.Process(target=nothing)
        process.start()
        process.join()
        if process.exitcode:
            sys.exit(f"{method}: exit code {process.exitcode}")
        process.close()

    return once


def command():
    import subprocess
    subprocess.run([sys.executable, "-c", "pass"], check=True)


def task():
    # What a nursery costs by itself belongs to it.
    with subhost.open_nursery() as nursery:
        nursery.start(nothing, isolation="process").result()


def wait_for_end(name):
    # In another interpreter: a file is the one thing both see. Not in a measured path.
    while not os.path.exists(name):
        time.sleep(0.05)


def answer(once):
    """Serve the measurements."""
    once()
    for line in sys.stdin:
        times = []
        for _ in range(int(line)):
            started = time.perf_counter_ns()
            once()
            times.append((time.perf_counter_ns() - started) / 1e6)
        print(*times, flush=True)


def main():
    name = sys.argv[1]
    if name.startswith("subhost"):
        global subhost
        import subhost
        siblings, end = int(sys.argv[2]), f"/tmp/subhost-bench-{os.getpid()}"
        with subhost.open_nursery() as nursery:
            try:
                for _ in range(siblings):
                    nursery.start(wait_for_end, end)
                time.sleep(0.5 if siblings else 0)
                answer(task)
            finally:
                with open(end, "w"):
                    pass
        os.unlink(end)
        return
    answer({"os.fork": os_fork, "subprocess": command}.get(name) or multiprocess(name))


if __name__ == "__main__":
    main()
