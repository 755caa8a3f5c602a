/* SPDX-License-Identifier: MIT
 *
 * The trail: what is written is JSON whatever the names are, what cannot be written is
 * counted, and nobody waits for it. Python reads it back. */
#include "unit.h"

#include <errno.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "audit/trail_line.h"
#include "audit/trail_writer.h"

static char folder[64], path[512];

static int make_folder(void **state)
{
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/subhost-trail-XXXXXX");
    if (!mkdtemp(folder))
        return -1;
    snprintf(path, sizeof path, "%s/trail", folder);
    return 0;
}

static int remove_folder(void **state)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    return unit_close_left(state) || system(command) != 0; // NOLINT(cert-env33-c)
}

#define TRAIL_TEST(test) cmocka_unit_test_setup_teardown(test, make_folder, remove_folder)

static struct trail *open_trail(const struct trail_options *options)
{
    struct trail *trail = NULL;
    subhost_error *err = NULL;
    if (subhost__trail_open(options, &trail, &err) != 0)
        print_error("%s\n", subhost_error_message(err));
    assert_non_null(trail);
    return trail;
}

static struct trail *open_plain(void)
{
    return open_trail(&(struct trail_options){.path = path});
}

/* Runs the Python code with `events` (of the file), `lines` (of bytes), `folder` and `path`. */
static void check(const char *code)
{
    char program[4096];
    subhost_host *host = unit_open();
    subhost_interp *interp = unit_interp(host);
    int n = snprintf(program, sizeof program,
                     "import json, os, re\nfolder, path = %s%s%s, %s%s%s\n"
                     "lines = open(path, 'rb').read().splitlines(True)\n"
                     "events = [json.loads(line) for line in lines]\n%s",
                     "'", folder, "'", "'", path, "'", code);
    assert_true(n > 0 && (size_t)n < sizeof program);
    unit_run(interp, program, SUBHOST_RETURNED);
    subhost_interp_release(interp);
    unit_close(host);
}

/* ---- lines ------------------------------------------------------------------------ */

/* Names are bytes to the system; `N` long. */
static const char hostile[] = "quote\" back\\slash \x01\x1f\x7f tab\t line\n "
                              "\xc3\xa4 \xe2\x82\xac \xf0\x9f\x90\x8d "
                              "\x80 \xc0\xaf \xed\xa0\x80 \xf5\x80\x80\x80 \xe2\x82";

static const struct {
    enum trail_event event;
    const char *fields;
} events_with_fields[] = {
#define ROW(event, name, text, fields) {EVENT_##event, fields},
    TRAIL_EVENTS(ROW)
#undef ROW
};

static const char *const field_names[] = {
#define ROW(field, name, kind, text) [FIELD_##field] = name,
    TRAIL_FIELDS(ROW)
#undef ROW
};

/* One value for each field of an event. */
static void fill(struct trail_value *values, const char *fields, const char *text)
{
    char copy[256];
    snprintf(copy, sizeof copy, "%s", fields);
    size_t count = 0;
    char *save = NULL;
    for (char *name = strtok_r(copy, " ", &save); name;
         name = strtok_r(NULL, " ", &save)) {
        enum trail_field field = 1;
        while (field < TRAIL_FIELD_COUNT && strcmp(field_names[field], name) != 0)
            field++;
        assert_true(field <
                    TRAIL_FIELD_COUNT); /* else events.h names no field of its list */
        values[count++] =
            (struct trail_value){.field = field, .text = text, .number = INT64_MAX - 1};
    }
    values[count] = (struct trail_value){.field = FIELD_END};
}

static void note_all(struct trail *trail, const char *text)
{
    for (size_t i = 0; i < ARRAY_LENGTH(events_with_fields); i++) {
        struct trail_value values[24];
        fill(values, events_with_fields[i].fields, text);
        if (events_with_fields[i].event != EVENT_HOST_CLOSE)
            subhost__trail_note(trail, events_with_fields[i].event, 7, 9, values);
    }
}

static void any_name_is_json(void **state)
{
    (void)state;
    struct trail *trail = open_plain();
    note_all(trail, hostile);
    subhost__trail_close(trail);
    check("raw = (b'quote\" back\\\\slash \\x01\\x1f\\x7f tab\\t line\\n \\xc3\\xa4 '\n"
          "       b'\\xe2\\x82\\xac \\xf0\\x9f\\x90\\x8d \\x80 \\xc0\\xaf "
          "\\xed\\xa0\\x80 '\n"
          "       b'\\xf5\\x80\\x80\\x80 \\xe2\\x82')\n"
          "text = os.fsdecode(raw)\n"
          "texts = [value for event in events for key, value in event.items()\n"
          "         if isinstance(value, str) and key not in ('wall', 'event')]\n"
          "assert len(texts) > 20 and set(texts) == {text}, texts\n"
          "assert all(e['interp'] == 7 and e['task'] == 9 for e in events)\n"
          "assert len({e['event'] for e in events}) == len(events) > 20\n");
}

/* The longest possible line of each event: nothing is left out but the end of a text. */
static void long_names_are_cut(void **state)
{
    (void)state;
    static char text[3 * 4096 + 1];
    for (size_t i = 0; i + 3 < sizeof text; i += 3)
        memcpy(text + i, "\xe2\x82\xac", 3);
    struct trail *trail = open_plain();
    note_all(trail, text);
    note_all(trail, "\x01\x01\x01");
    subhost__trail_close(trail);
    check("assert max(map(len, lines)) <= 4096, max(map(len, lines))\n"
          "half = len(events) // 2\n"
          "assert [list(e) for e in events[:half]] == [list(e) for e in events[half:]]\n"
          "for event in events[:half]:\n"
          "    for key, value in event.items():\n"
          "        for text in value if isinstance(value, list) else [value]:\n"
          "            if isinstance(text, str) and key not in ('wall', 'event'):\n"
          "                assert re.fullmatch('\\u20ac{100,}[.]{3}', text), (key, "
          "text)\n");
}

static void lists_and_times(void **state)
{
    (void)state;
    static char frames[8000];
    size_t used = 0;
    for (int i = 0; i < 200; i++)
        used += (size_t)snprintf(frames + used, sizeof frames - used, "%sframe %d",
                                 i ? "\x1e" : "", i);
    struct trail *trail = open_plain();
    NOTE_EVENT(trail, FORK_REFUSED, 0, 0, TRAIL_TEXT(STACK, "one\x1e\x1ethree"));
    NOTE_EVENT(trail, FORK_REFUSED, 0, 0, TRAIL_TEXT(STACK, frames));
    NOTE_EVENT(trail, TASK_STARTED, 0, 0, TRAIL_TEXT(NAME, NULL), TRAIL_NUMBER(PARENT, 0),
               TRAIL_NUMBER(TIMEOUT, SUBHOST_FOREVER), TRAIL_NUMBER(WORKER, -3));
    NOTE_EVENT(trail, TASK_ENDED, 0, 0, TRAIL_NUMBER(DURATION, 1000000001),
               TRAIL_NUMBER(AFTER, 0), TRAIL_NUMBER(INSISTS, 1));
    subhost__trail_close(trail);
    check(
        "import datetime, time\n"
        "a, b, c, d = events\n"
        "assert a['stack'] == ['one', '', 'three'], a\n"
        "assert b['stack'][:2] == ['frame 0', 'frame 1'] and b['stack'][-1] == '...', b\n"
        "assert list(c)[4:] == ['event', 'worker'] and c['worker'] == -3, c\n"
        "assert (d['duration'], d['after'], d['insists']) == (1.000000001, 0, True), d\n"
        "assert abs(d['t'] - time.monotonic()) < 100\n"
        "wall = datetime.datetime.fromisoformat(d['wall']).timestamp()\n"
        "assert abs(wall - time.time()) < 100, wall\n");
}

static void dates_are_right(void **state)
{
    (void)state;
    static const time_t times[] = {0,          951782399,  951782400,
                                   1709164800, 1735689599, 4107542399};
    for (size_t i = 0; i < ARRAY_LENGTH(times); i++) {
        char line[TRAIL_LINE_MAX + 1], expected[64];
        struct tm tm;
        const struct trail_head head = {.wall = {.tv_sec = times[i], .tv_nsec = 1000}};
        const struct trail_value none = {.field = FIELD_END};
        line[subhost__trail_line(line, &head, &none)] = '\0';
        gmtime_r(&times[i], &tm);
        strftime(expected, sizeof expected, "\"wall\": \"%Y-%m-%dT%H:%M:%S.000001Z\"",
                 &tm);
        assert_non_null(strstr(line, expected));
    }
}

/* The line that is made of a record is that of the event, whatever its texts are. */
static void records_are_their_lines(void **state)
{
    (void)state;
    static char texts[6][12000], record[TRAIL_RECORD_MAX];
    char line[TRAIL_LINE_MAX], again[TRAIL_LINE_MAX];
    const struct trail_head head = {
        .wall = {.tv_sec = 9}, .pid = 5, .thread = 6, .interp = 7, .task = 8};
    static const char *const patterns[] = {"x",        "\xe2\x82\xac", "\x80",
                                           "\x01\"\\", "ab\x1e",       hostile};
    for (size_t i = 0; i < ARRAY_LENGTH(texts); i++)
        for (size_t used = 0; used + 100 < sizeof texts[i];)
            used += (size_t)snprintf(texts[i] + used, 100, "%s", patterns[i]);
    /* A long string before others in a list. */
    memset(texts[4] + 100, 'y', 9000);
    for (size_t i = 0; i < ARRAY_LENGTH(events_with_fields); i++)
        for (size_t text = 0; text < ARRAY_LENGTH(texts); text++)
            for (size_t length = 0; length < sizeof texts[0]; length += length / 4 + 1) {
                struct trail_value values[24];
                fill(values, events_with_fields[i].fields,
                     texts[text] + sizeof texts[0] - 1 - length);
                size_t size = subhost__trail_line(line, &head, values), at = 0;
                size_t used = subhost__trail_record(record, &head, values);
                assert_true(used < sizeof record);
                assert_int_equal(
                    subhost__trail_render(record, used, &at, again, sizeof again), size);
                assert_int_equal(at, used);
                assert_memory_equal(line, again, size);
            }
}

/* ---- files that do not take it ---------------------------------------------------- */

#define MANY 40000 /* more than two buffers hold */

static int64_t note_many(struct trail *trail, int count)
{
    int64_t longest = 0;
    for (int i = 0; i < count; i++) {
        int64_t before = subhost__now();
        NOTE_EVENT(trail, TASK_STARTED, 1, 2, TRAIL_TEXT(NAME, "task"),
                   TRAIL_NUMBER(WORKER, i));
        int64_t took = subhost__now() - before;
        longest = took > longest ? took : longest;
    }
    return longest;
}

static void fifo_that_nobody_reads(void **state)
{
    (void)state;
    assert_int_equal(mkfifo(path, 0600), 0);
    int64_t before = subhost__now();
    struct trail *trail = open_plain();
    assert_true(note_many(trail, MANY) < unit_patience(1));
    struct trail_counts counts = subhost__trail_counts(trail);
    assert_int_equal(counts.events, MANY);
    assert_true(counts.lost > MANY / 2);
    assert_int_equal(subhost__trail_flush(trail, SUBHOST_MSEC(50)), ETIMEDOUT);
    subhost__trail_close(trail);
    assert_true(subhost__now() - before < unit_patience(5));
}

struct reader {
    int fd;
    FILE *copy;
    atomic_bool over;
};

static void *read_slowly(void *arg)
{
    struct reader *reader = arg;
    char text[1000];
    while (true) {
        ssize_t n = read(reader->fd, text, sizeof text);
        if (n > 0)
            fwrite(text, 1, (size_t)n, reader->copy);
        else if (atomic_load(&reader->over))
            return NULL;
        else
            poll(NULL, 0, 1);
    }
}

/* What the reader gets is whole lines, and the losses are said where they happened. */
static void fifo_that_is_slow(void **state)
{
    (void)state;
    char copy[sizeof path + 8];
    snprintf(copy, sizeof copy, "%s.fifo", path);
    assert_int_equal(mkfifo(copy, 0600), 0);
    struct reader reader = {.fd = open(copy, O_RDONLY | O_NONBLOCK | O_CLOEXEC),
                            .copy = fopen(path, "we")};
    assert_true(reader.fd >= 0 && reader.copy);
    struct trail *trail = open_trail(&(struct trail_options){.path = copy});
    note_many(trail, MANY); /* before anybody reads */
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, read_slowly, &reader), 0);
    assert_int_equal(subhost__trail_flush(trail, unit_patience(20)), 0);
    NOTE_EVENT(trail, HOST_CLOSE, 0, 0, TRAIL_NUMBER(LOST, 1));
    NOTE_EVENT(trail, SIGNAL, 0, 0, TRAIL_TEXT(SIGNAL, "behind the end"));
    uint64_t lost = subhost__trail_counts(trail).lost;
    subhost__trail_close(trail);
    atomic_store(&reader.over, true);
    pthread_join(thread, NULL);
    fclose(reader.copy);
    close(reader.fd);
    assert_true(lost > 0);
    char code[512];
    snprintf(code, sizeof code,
             "started = [e['worker'] for e in events if e['event'] == 'task-started']\n"
             "lost = sum(e['count'] for e in events if e['event'] == 'events-lost')\n"
             "assert len(started) + lost == %d, (len(started), lost)\n"
             "assert lost == %llu and started == sorted(started)\n"
             "assert events[-1]['event'] == 'host-close', events[-1]\n",
             MANY, (unsigned long long)lost);
    check(code);
}

static void full_disk(void **state)
{
    (void)state;
    struct trail *trail = open_trail(&(struct trail_options){.path = "/dev/full"});
    note_many(trail, 10);
    assert_int_equal(subhost__trail_flush(trail, unit_patience(5)), ENOSPC);
    int64_t before = subhost__now();
    subhost__trail_close(trail);
    assert_true(subhost__now() - before < unit_patience(1));
}

/* Half a line is in the file when it fills up; the rest follows when there is room again. */
static void disk_that_was_full(void **state)
{
    (void)state;
    struct rlimit old, small;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    small = old;
    small.rlim_cur = 1000;
    struct trail *trail = open_plain();
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    note_many(trail, 50);
    int full = subhost__trail_flush(trail, unit_patience(5));
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    assert_int_equal(full, EFBIG);
    for (int i = 0; i < 50 && subhost__trail_flush(trail, unit_patience(5)) != 0; i++)
        poll(NULL, 0, 50);
    subhost__trail_close(trail);
    check("assert [e['worker'] for e in events] == list(range(50))\n");
}

static void bad_paths(void **state)
{
    (void)state;
    static const char *const paths[] = {"/nowhere/trail", "/tmp", ""};
    for (size_t i = 0; i < ARRAY_LENGTH(paths); i++) {
        struct trail *trail = NULL;
        subhost_error *err = NULL;
        const struct trail_options options = {.path = paths[i], .limit = 10000};
        assert_int_equal(subhost__trail_open(&options, &trail, &err), SUBHOST_ESYSTEM);
        assert_null(trail);
        assert_non_null(strstr(subhost_error_message(err), "the trail: "));
        assert_non_null(strstr(subhost_error_message(err), paths[i]));
        subhost_error_free(err);
    }
}

/* ---- several files ---------------------------------------------------------------- */

static void rotation(void **state)
{
    (void)state;
    struct trail *trail =
        open_trail(&(struct trail_options){.path = path, .limit = 8000, .files = 2});
    /* A program may go elsewhere. */
    char *before = getcwd(NULL, 0);
    assert_int_equal(chdir("/"), 0);
    note_many(trail, 400);
    assert_int_equal(subhost__trail_flush(trail, unit_patience(5)), 0);
    assert_int_equal(chdir(before), 0);
    free(before);
    char id[64];
    snprintf(id, sizeof id, "%s", subhost__trail_id(trail));
    subhost__trail_close(trail);
    char code[1024];
    snprintf(code, sizeof code,
             "assert sorted(os.listdir(folder)) == ['trail', 'trail.1', 'trail.2']\n"
             "seen, parts = [], []\n"
             "for name in ['.2', '.1', '']:\n"
             "    data = open(path + name).read()\n"
             "    first, *rest = map(json.loads, data.splitlines())\n"
             "    assert 3000 < len(data) <= 8000 or not name, len(data)\n"
             "    assert first['event'] == 'trail-continued', first\n"
             "    assert first['trail'] == '%s', first\n"
             "    parts.append(first['part'])\n"
             "    seen += [event['worker'] for event in rest]\n"
             "assert parts == [parts[0], parts[0] + 1, parts[0] + 2] and parts[0] > 2\n"
             "assert seen == list(range(seen[0], 400)), seen\n",
             id);
    check(code);
}

static void rotation_by_the_line(void **state)
{
    (void)state;
    struct trail *trail =
        open_trail(&(struct trail_options){.path = path, .limit = 1, .files = 9});
    note_many(trail, 6);
    subhost__trail_close(trail);
    check(
        "names = [path + end for end in ('.5', '.4', '.3', '.2', '.1', '')]\n"
        "assert len(os.listdir(folder)) == 6, os.listdir(folder)\n"
        "last = [open(name).read().splitlines()[-1] for name in names]\n"
        "assert [json.loads(line)['worker'] for line in last] == list(range(6)), last\n");
}

static void rotation_that_fails(void **state)
{
    (void)state;
    size_t length = strlen(path);
    memset(path + length, 'x', 250); /* NAME.1 would be too long a name */
    path[length + 250] = '\0';
    struct trail *trail =
        open_trail(&(struct trail_options){.path = path, .limit = 4096});
    note_many(trail, 100);
    subhost__trail_close(trail);
    check("assert len(os.listdir(folder)) == 1\n"
          "names = [event['event'] for event in events]\n"
          "assert names.count('trail-not-continued') == 1 and len(names) == 101, names\n"
          "assert events[names.index('trail-not-continued')]['why'] == "
          "'File name too long'\n");
}

static void what_is_no_file_is_not_rotated(void **state)
{
    (void)state;
    char target[sizeof path + 8];
    snprintf(target, sizeof target, "%s.real", path);
    int fd = open(target, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(symlink(target, path), 0);
    struct trail *trail =
        open_trail(&(struct trail_options){.path = path, .limit = 4096});
    note_many(trail, 100);
    subhost__trail_close(trail);
    check("assert os.path.islink(path) and len(os.listdir(folder)) == 2\n"
          "assert len(events) == 100\n");
}

/* ---- processes -------------------------------------------------------------------- */

struct up {
    int fd;
    bool busy;
    uint64_t lost;
};

static bool pass_up(void *data, const char *text, size_t size, uint64_t lost)
{
    struct up *up = data;
    if (up->busy)
        return false;
    up->lost += lost;
    while (size > 0) {
        ssize_t n = write(up->fd, text, size);
        if (n <= 0)
            _exit(1);
        text += n;
        size -= (size_t)n;
    }
    return true;
}

static void wake_nobody(void *data) { (void)data; }

static _Noreturn void be_child(struct trail *trail, int fd)
{
    struct up up = {.fd = fd, .busy = true};
    subhost__trail_after_fork(trail, pass_up, wake_nobody, &up);
    for (int i = 0; i < 10; i++) {
        note_many(trail, 2000);
        subhost__trail_write(trail); /* nobody takes it: what does not fit is lost */
    }
    up.busy = false;
    subhost__trail_write(trail);
    if (write(fd, &up.lost, sizeof up.lost) != sizeof up.lost)
        _exit(1);
    _exit(subhost__trail_counts(trail).lost == up.lost && up.lost > 0 ? 0 : 2);
}

static void forked_child(void **state)
{
    (void)state;
    struct trail *trail = open_plain();
    note_many(trail, 3); /* the parent's own, which it writes itself */
    int fds[2];
    assert_int_equal(pipe(fds), 0);
    pid_t pid = fork();
    if (pid == 0)
        be_child(trail, fds[1]);
    assert_true(pid > 0);
    close(fds[1]);
    static char text[8 << 20];
    size_t size = 0;
    for (ssize_t n; (n = read(fds[0], text + size, sizeof text - size)) > 0;)
        size += (size_t)n;
    close(fds[0]);
    int status = -1;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    uint64_t lost;
    assert_true(size > sizeof lost);
    size -= sizeof lost;
    memcpy(&lost, text + size, sizeof lost);
    assert_int_equal(subhost__trail_flush(trail, unit_patience(5)), 0);
    /* In two halves: the second finds the buffer as full as it may be. */
    const char *half = (const char *)memchr(text + size / 2, '\n', size / 2) + 1;
    subhost__trail_pass(trail, text, (size_t)(half - text), 0);
    subhost__trail_pass(trail, half, size - (size_t)(half - text), lost);
    assert_true(subhost__trail_counts(trail).lost >= lost);
    subhost__trail_close(trail);
    char code[512];
    snprintf(code, sizeof code,
             "from collections import Counter\n"
             "pids = Counter(e['pid'] for e in events if e['event'] == 'task-started')\n"
             "lost = sum(e['count'] for e in events if e['event'] == 'events-lost')\n"
             "assert pids[%d] == 3 and lost + pids[%d] == 20000, (pids, lost)\n"
             "assert lost >= %llu > 0\n",
             (int)getpid(), (int)pid, (unsigned long long)lost);
    check(code);
}

/* ---- the host --------------------------------------------------------------------- */

static void first_and_last_line(void **state)
{
    (void)state;
    subhost_options options = SUBHOST_OPTIONS_INIT;
    options.trail = path;
    options.trail_limit = 1 << 20;
    subhost_host *host = NULL;
    assert_int_equal(subhost_open(&options, &host, NULL), 0);
    subhost_interp *interp = unit_interp(host);
    unit_run(interp, "pass", SUBHOST_RETURNED);
    subhost_stats stats = {.size = sizeof stats};
    subhost_get_stats(host, &stats);
    assert_true(stats.trail_events >= 4 && stats.trail_lost == 0);
    assert_int_equal(subhost_trail_flush(host, unit_patience(5), NULL), 0);
    subhost_interp_release(interp);
    unit_close(host);
    check("first, last = events[0], events[-1]\n"
          "assert first['event'] == 'host-open' and first['format'] == 1, first\n"
          "assert first['part'] == 1 and first['limit'] == 1 << 20, first\n"
          "assert first['version'].startswith('subhost '), first\n"
          "assert last['event'] == 'host-close' and last['tasks'] == 1, last\n"
          "assert (last['events'], last['lost']) == (len(events) - 1, 0), last\n");
}

static void python_events(void **state)
{
    (void)state;
    static const char *const names[] = {"unit.", "unit2", NULL};
    subhost_options options = SUBHOST_OPTIONS_INIT;
    options.trail = path;
    options.trail_python_events = names;
    subhost_host *host = NULL;
    assert_int_equal(subhost_open(&options, &host, NULL), 0);
    subhost_interp *interp = unit_interp(host);
    unit_run(
        interp,
        "import sys\n"
        "class Evil:\n"
        "    def __repr__(self): raise KeyboardInterrupt\n"
        "sys.audit('unit.one', 1, 2.5, None, True, 'h\\xe4\\udcff\\ud800', b'\\0\\xff',\n"
        "          Evil(), 10 ** 9999, ())\n"
        "sys.audit('unit', 1)\n"
        "sys.audit('unit2', 'x' * 10000, *range(2000))\n"
        "sys.audit('open.not', 1)\n"
        "try:\n"
        "    1 / 0\n"
        "except ZeroDivisionError:\n"
        "    sys.audit('unit.bare')\n",
        SUBHOST_RETURNED);
    subhost_interp_release(interp);
    unit_close(host);
    check(
        "assert events[0]['python_events'] == ['unit.', 'unit2'], events[0]\n"
        "a, b, c = [e for e in events if e['event'] == 'python-event']\n"
        "assert (a['name'], b['name'], c['name']) == ('unit.one', 'unit2', 'unit.bare')\n"
        "assert a['args'][:4] == ['1', '2.5', 'None', 'True'], a\n"
        "assert a['args'][5:] == ['?\\udcff', '<Evil>', '<int>', '<tuple>'], a\n"
        "assert a['at'] == '<string>:4' and (a['interp'], a['task']) == (1, 1), a\n"
        "assert len(b['args'][0]) < 500 and b['args'][0].endswith('xxx...'), b\n"
        "assert 'args' not in c and c['at'].startswith('<string>:1'), c\n");
}

/* Nor do the first host's events end with it. */
static void a_second_host_is_refused(void **state)
{
    (void)state;
    static const char *const names[] = {"unit.", NULL};
    subhost_options options = SUBHOST_OPTIONS_INIT;
    options.trail = path;
    options.trail_python_events = names;
    subhost_host *host = NULL, *second = NULL;
    assert_int_equal(subhost_open(&options, &host, NULL), 0);
    subhost_interp *interp = unit_interp(host);
    unit_run(interp, "import sys; sys.audit('unit.before')", SUBHOST_RETURNED);
    assert_int_equal(subhost_open(NULL, &second, NULL), SUBHOST_ESTATE);
    unit_run(interp, "import sys; sys.audit('unit.after')", SUBHOST_RETURNED);
    subhost_interp_release(interp);
    unit_close(host);
    check("seen = [e['name'] for e in events if e['event'] == 'python-event']\n"
          "assert seen == ['unit.before', 'unit.after'], seen\n");
}

static void the_path_is_copied(void **state)
{
    (void)state;
    subhost_options options = SUBHOST_OPTIONS_INIT;
    char *full = strdup("/dev/full");
    options.trail = full;
    subhost_host *host = NULL;
    subhost_error *err = NULL;
    assert_int_equal(subhost_open(&options, &host, NULL), 0);
    memset(full, 'X', strlen(full));
    free(full);
    int code = subhost_trail_flush(host, unit_patience(5), &err);
    assert_int_equal(code, SUBHOST_ESYSTEM);
    assert_string_equal(subhost_error_message(err),
                        "the trail: /dev/full: No space left on device");
    subhost_error_free(err);
    unit_close(host);
}

static void bad_options(void **state)
{
    (void)state;
    static const char *const names[] = {"open", "", NULL}, *const good[] = {"open", NULL};
    const struct {
        const char *trail, *const *names;
        int64_t limit;
        const char *message;
    } rows[] = {
        {path, names, 0, "'' is no beginning of an event's name"},
        {NULL, good, 0, "there is no trail"},
        {path, good, -1, "trail_limit is negative"},
    };
    for (size_t i = 0; i < ARRAY_LENGTH(rows); i++) {
        subhost_options options = SUBHOST_OPTIONS_INIT;
        options.trail = rows[i].trail;
        options.trail_python_events = rows[i].names;
        options.trail_limit = rows[i].limit;
        subhost_host *host = NULL;
        subhost_error *err = NULL;
        assert_int_equal(subhost_open(&options, &host, &err), SUBHOST_EINVAL);
        if (!strstr(subhost_error_message(err), rows[i].message))
            print_error("%s\n", subhost_error_message(err));
        assert_non_null(strstr(subhost_error_message(err), rows[i].message));
        subhost_error_free(err);
        assert_null(host);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TRAIL_TEST(any_name_is_json),
        TRAIL_TEST(long_names_are_cut),
        TRAIL_TEST(lists_and_times),
        TRAIL_TEST(dates_are_right),
        cmocka_unit_test(records_are_their_lines),
        TRAIL_TEST(fifo_that_nobody_reads),
        TRAIL_TEST(fifo_that_is_slow),
        TRAIL_TEST(full_disk),
        TRAIL_TEST(disk_that_was_full),
        TRAIL_TEST(bad_paths),
        TRAIL_TEST(rotation),
        TRAIL_TEST(rotation_by_the_line),
        TRAIL_TEST(rotation_that_fails),
        TRAIL_TEST(what_is_no_file_is_not_rotated),
        TRAIL_TEST(forked_child),
        TRAIL_TEST(first_and_last_line),
        TRAIL_TEST(python_events),
        TRAIL_TEST(a_second_host_is_refused),
        TRAIL_TEST(the_path_is_copied),
        TRAIL_TEST(bad_options),
    };
    return UNIT_MAIN(tests);
}
