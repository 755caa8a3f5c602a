#!/usr/bin/env python3
# timeout: 180
"""Library modules with state that a fork could break, used in a program and again in its
forked children: shared memory (`resource-tracker`), multiprocessing, ssl, sqlite3, random,
uuid, logging and more; the program itself in an interpreter and in a child."""
import pathlib
import shutil
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from tap import equal, main, ok, skip, test
from sessions import run_hosted

PROGRAM = pathlib.Path(__file__).resolve().parent / "programs" / "libraries.py"


def right(tmp, *checks, timeout=30, isolations=("interpreter",), says=None):
    for check in checks:
        for isolation in isolations:
            folder = tmp / f"{check}-{isolation}"
            folder.mkdir()
            if (tmp / "certificate.pem").exists():
                shutil.copy(tmp / "certificate.pem", folder)
            result, left = run_hosted("--isolation", isolation, PROGRAM, check, folder,
                                      timeout=timeout, patience=3)
            ok((result.status, result.out, left) == (0, "right\n", [])
               and (says in result.err if says else not result.err), f"{check}, from {isolation}", result=result, left=left)


BOTH = ("interpreter", "process")


@test
def resource_tracker(tmp):
    right(tmp, "shared_memory", isolations=BOTH)
    right(tmp, "shareable_list")
    right(tmp, "tracker_of_the_program_itself", says="1 leaked shared_memory")


@test
def multiprocessing(tmp):
    right(tmp, "pool_spawn", isolations=BOTH, timeout=30)
    right(tmp, "pool_forkserver", "queue_and_locks", "executors", timeout=30)


@test
def ssl(tmp):
    right(tmp, "ssl_contexts", isolations=BOTH)
    if not shutil.which("openssl"):
        skip("a TLS handshake", "no openssl command to make a certificate with")
        return
    made = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext",
         "subjectAltName=DNS:localhost", "-keyout", tmp / "key.pem", "-out", tmp / "only.pem"],
        capture_output=True, timeout=30)
    equal(made.returncode, 0, "openssl makes a certificate", stderr=made.stderr)
    (tmp / "certificate.pem").write_text((tmp / "key.pem").read_text()
                                         + (tmp / "only.pem").read_text())
    right(tmp, "tls", isolations=BOTH)


@test
def databases(tmp):
    right(tmp, "sqlite", isolations=BOTH)


@test
def random_numbers(tmp):
    right(tmp, "random_numbers", isolations=BOTH)
    right(tmp, "hash_seed")


@test
def threads_signals_processes(tmp):
    right(tmp, "use_logging", "threads", "handlers", "subprocesses", "event_loops",
          "ctypes_callbacks")
    right(tmp, "use_logging", "handlers", "event_loops", isolations=("process",))


main()
