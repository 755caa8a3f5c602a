/* zlib for Python, by four signatures: lengths, out-parameters and errors are their matter.
 *
 *   cc zlib.c $(pkg-config --cflags --libs subhost zlib) -o zlib && ./zlib */
#include <stdio.h>
#include <subhost.h>
#include <zlib.h>

/* uLong is unsigned long: u64 on Linux. */
static const struct {
    subhost_native_function function;
    const char *signature;
} functions[] = {
    {(subhost_native_function)compressBound, "u64 compressBound(u64 size) gil"},
    {(subhost_native_function)compress,
     "i32 compress(mut buf to, inout u64 size, buf data, len<u64>) nonzero"},
    {(subhost_native_function)uncompress,
     "i32 uncompress(mut buf to, inout u64 size, buf data, len<u64>) nonzero"},
    {(subhost_native_function)crc32, "u64 crc32(u64 crc, buf data, len<u32>)"},
};

static const char program_text[] =
    "from subhost.native import compress, compressBound, crc32, uncompress\n"
    "text = b'to be or not to be ' * 100\n"
    "packed = bytearray(compressBound(len(text)))\n"
    "size = compress(packed, len(packed), text)\n"
    "again = bytearray(len(text))\n"
    "uncompress(to=again, size=len(again), data=packed[:size])\n"
    "print(len(text), 'bytes,', 'smaller:', size < 100, 'the same again:', again == "
    "text)\n"
    "print('crc', hex(crc32(0, text)))\n"
    "try:\n"
    "    uncompress(again, 10, packed[:size])\n"
    "except RuntimeError as error:\n"
    "    print(error, error.code)\n";

static int fail(const char *what, subhost_error *err)
{
    fprintf(stderr, "%s: %s\n", what, subhost_error_message(err));
    subhost_error_free(err);
    return 1;
}

int main(void)
{
    subhost_error *err = NULL;
    subhost_host *host;
    if (subhost_open(NULL, &host, &err))
        return fail("no host", err);
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++)
        if (subhost_bind(host, NULL, functions[i].function, functions[i].signature, NULL,
                         &err))
            return fail("not bound", err);
    subhost_interp *interp;
    if (subhost_interp_create(host, NULL, &interp, &err))
        return fail("no interpreter", err);
    subhost_program program = SUBHOST_PROGRAM_INIT;
    program.kind = SUBHOST_PROGRAM_CODE;
    program.source = program_text;
    subhost_task *task;
    if (subhost_submit(interp, &program, NULL, &task, &err) ||
        subhost_task_wait(task, SUBHOST_MSEC(20000), NULL, &err))
        return fail("not run", err);
    subhost_task_release(task);
    subhost_interp_release(interp);
    if (subhost_close(host, SUBHOST_CLOSE_FINALIZE, SUBHOST_MSEC(2000), &err))
        return fail("not closed", err);
    return 0;
}
