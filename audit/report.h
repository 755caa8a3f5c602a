/* Audits and their reports: how a kind of audit is made.
 *
 * An audit is collected and rendered by Python modules in audit/python, which the build
 * freezes (every *.py there; no list to keep). They run as a program in a hosted
 * interpreter with a GIL of its own, whose modules are the package `subhost_audit`:
 *
 *   program.py   sets the package up, collects, renders, writes, answers
 *   report.py    the document's model: see its header; docs/report.schema.json
 *   text.py, json.py, tap.py, html.py    one renderer each
 *   host.py, modules.py, trail.py        one kind of audit each: collect(request) and, where
 *                the general form is not enough, columns and sections of its own
 *
 * A kind that examines in C has a gather function (report.c's table), which runs before
 * CPython is initialized in this process, so that its throwaway children are forked from a
 * process without threads; throwaway.h has them. What it finds goes to Python as records.
 *
 * To add a kind: a row in SUBHOST_AUDITS (subhost.h), a row in the table `gatherers` when
 * there is something to do before Python, a module audit/python/KIND.py. */
#ifndef SUBHOST_REPORT_H
#define SUBHOST_REPORT_H

#include "records.h"

/* Examines, and adds records. Main thread, no Python in this process. 0, or a code. */
typedef int subhost__gather(const subhost_audit_options *options, struct records *records,
                            subhost_error **err);

/* How many examinations run at the same time. */
int subhost__audit_jobs(const subhost_audit_options *options);

/* The code object of audit/python/NAME.py, owned; NULL with an exception set. GIL held. */
struct _object *subhost__audit_code(const char *name);

/* host.c */
subhost__gather subhost__audit_host;
/* modules.c */
subhost__gather subhost__audit_modules;

#endif
