/* Random numbers: see random.h. */
#include "base/random.h"

#include <sodium.h>

bool
random_start(void)
{
	return randombytes_set_implementation(&randombytes_internal_implementation) == 0 &&
	       sodium_init() >= 0;
}
