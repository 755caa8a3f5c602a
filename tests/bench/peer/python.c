/* python, on the shared libpython that subhost embeds. A distribution's own python may be linked
 * with another build of the same code: Debian's has its libpython inside, built with profiles,
 * and runs pure Python up to 1.7 times as fast as its libpython.so. */
#include <Python.h>

int main(int argc, char **argv) { return Py_BytesMain(argc, argv); }
