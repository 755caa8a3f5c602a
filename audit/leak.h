/* What creating and ending interpreters leaves behind: for the two leak probes. */
#ifndef SUBHOST_LEAK_H
#define SUBHOST_LEAK_H

/* Says into which class the growth of the resident set falls, per create and end of an own-GIL
 * interpreter that runs `code`. */
void subhost__see_leak(int fd, const char *code, int warm_up, int rounds);

#endif
