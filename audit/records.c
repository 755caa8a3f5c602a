/* Records of named strings: see records.h. */
#define _GNU_SOURCE
#include "records.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>

int subhost__records_open(struct records *records, subhost_error **err)
{
    *records = (struct records){0};
    records->out = open_memstream(&records->data, &records->size);
    return records->out ? 0 : subhost__fail_errno(err, errno, "the audit's records");
}

void subhost__records_put(struct records *records, const char *key, const char *value)
{
    if (value && *value)
        fprintf(records->out, "%s%c%s%c", key, 0, value, 0);
}

void subhost__records_print(struct records *records, const char *key, const char *format,
                            ...)
{
    va_list args;
    va_start(args, format);
    fprintf(records->out, "%s%c", key, 0);
    vfprintf(records->out, format, args);
    fputc(0, records->out);
    va_end(args);
}

void subhost__records_end(struct records *records) { fputc(0, records->out); }

int subhost__records_finish(struct records *records, subhost_error **err)
{
    int failed = ferror(records->out) | fclose(records->out);
    records->out = NULL;
    if (!failed)
        return 0;
    free(records->data);
    records->data = NULL;
    return subhost__fail(err, SUBHOST_ENOMEM, "the audit's records: out of memory");
}
