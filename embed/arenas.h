/* The first arenas of Python's object allocator, from huge pages. */
#ifndef SUBHOST_ARENAS_H
#define SUBHOST_ARENAS_H

/* Before CPython starts; once in a process, later calls do nothing. Without huge pages, or
 * address space, everything stays as CPython has it. */
void subhost__arenas_install(void);

#endif
