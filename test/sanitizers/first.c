/*
 * AddressSanitizer begins with the first malloc.  In the server that is one of a
 * library which calls gettext when it is loaded, and so does the sanitizer: they
 * would wait for each other for ever.  This library is loaded before all others
 * (-z initfirst), and allocates first.
 */
#include <stdlib.h>

__attribute__((constructor)) static void
allocate(void)
{
	free(malloc(1));
}
