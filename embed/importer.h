/* What the main interpreter imports for an extension module of a program's: see importer.c. */
#ifndef SUBHOST_IMPORTER_H
#define SUBHOST_IMPORTER_H

/* In the main interpreter, when CPython has started. 0, or -1 with an exception set. GIL held. */
int subhost__importer_install(void);

/* In a forked child, whose main interpreter a program has for its own. GIL held. */
void subhost__importer_remove(void);

#endif
