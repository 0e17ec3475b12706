/*
 * Allocations that fail on demand. A torture test includes this and then the
 * very sources under test, so that their calls end here.
 */
#ifndef TMTP_TESTS_TORTURE_H
#define TMTP_TESTS_TORTURE_H

#include "dmtp_test.h"

static long torture_left = -1; /* allocations until one fails; below 0: none does */

static bool
torture_fails(void)
{
	if (torture_left < 0)
		return false;
	return torture_left-- == 0;
}

static void *
torture_calloc(size_t n, size_t size)
{
	return torture_fails() ? NULL : calloc(n, size);
}

static void *
torture_realloc(void *p, size_t size)
{
	return torture_fails() ? NULL : realloc(p, size);
}

#define calloc torture_calloc
#define realloc torture_realloc

#endif
