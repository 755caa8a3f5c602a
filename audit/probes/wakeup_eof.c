/* A wakeup descriptor that nobody reads. */
#define _GNU_SOURCE
#include <unistd.h>

#include "audit/probe.h"

static const char code[] =
    "import os, signal, socket, sys, time\n"
    "got = []\n"
    "signal.signal(signal.SIGUSR2, lambda *a: got.append(1))\n"
    "mine, peer = socket.socketpair()\n"
    "mine.setblocking(False)\n"
    "signal.set_wakeup_fd(mine.fileno())\n"
    "peer.close()\n"
    "def used(): t = os.times(); return t.user + t.system\n"
    "for _ in range(5):\n"
    "    os.kill(os.getpid(), signal.SIGUSR2); time.sleep(0.02)\n"
    "cpu = used(); time.sleep(0.5); cpu = used() - cpu\n"
    "words = f'{len(got)} signals; CPU: {\"low\" if cpu < 0.2 else cpu}'\n"
    "os.write(int(sys.argv[1]), words.encode())\n";

static void run(int fd)
{
    subhost_options options = SUBHOST_OPTIONS_INIT;
    options.take_signals = 1;
    subhost_host *host = subhost__hosted_open(fd, &options);
    subhost__hosted_code(fd, host, code);
    _exit(0);
}

const struct probe subhost__probe_wakeup_eof = {
    .id = "wakeup-eof",
    .title = "five signals with a wakeup descriptor whose other end is closed",
    .constraint = "every signal arrives, and nothing spins",
    .source = "signal.set_wakeup_fd(); tests/cancel/wakeup_eof.t",
    .meaning = "a drain loop that takes recv() == 0 for \"again\" burns a processor",
    .expected = {{FROM(3, 13), "5 signals; CPU: low"}},
    .run = run,
};
