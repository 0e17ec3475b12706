/*
 * How often a second a request's token is recognised: SHA-256 of a token of the
 * usual length and the look-up in the cache of verified ones, on several threads.
 *
 *	bench_web_tokens [threads [seconds]]
 */
#include "base/clock.h"
#include "web/token.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#define TOKENS 4096
#define TOKEN_LEN 420

static char tokens[TOKENS][TOKEN_LEN];
static struct token_cache *cache;
static _Atomic bool done;

static void
make_tokens(void)
{
	struct token_claims claims = {
		.exp = INT64_MAX, .iss = "shop", .kid = "2026-11", .scope = "push"
	};
	uint8_t digest[TOKEN_DIGEST];
	uint64_t generation;

	for (size_t i = 0; i < TOKENS; i++) {
		(void)snprintf(tokens[i], TOKEN_LEN, "%0*zu", TOKEN_LEN - 1, i);
		token_digest(slice_mem(tokens[i], TOKEN_LEN - 1), digest);
		if (!token_cache_get(cache, digest, 0, &claims, &generation))
			token_cache_put(cache, digest, &claims, generation);
	}
}

static void *
look_up(void *arg)
{
	struct token_claims claims;
	uint8_t digest[TOKEN_DIGEST];
	uint64_t generation;
	intptr_t n = 0, found = 0;

	for (size_t i = (size_t)(intptr_t)arg * 977; !atomic_load(&done); i++, n++) {
		token_digest(slice_mem(tokens[i % TOKENS], TOKEN_LEN - 1), digest);
		found += token_cache_get(cache, digest, 0, &claims, &generation);
	}
	if (found < n * 9 / 10)
		(void)fprintf(stderr, "only %ld of %ld found\n", (long)found, (long)n);
	return (void *)n;
}

int
main(int argc, char **argv)
{
	int threads = argc > 1 ? atoi(argv[1]) : 2;
	double seconds = argc > 2 ? atof(argv[2]) : 2;
	struct timespec pause = { .tv_sec = (time_t)seconds };
	pthread_t ids[64];
	int64_t start_us, total = 0;

	cache = token_cache_make((size_t)TOKENS * 4);
	if (cache == NULL || threads < 1 || threads > 64)
		return 1;
	make_tokens();
	start_us = clock_mono_us();
	for (int i = 0; i < threads; i++) {
		if (pthread_create(&ids[i], NULL, look_up, (void *)(intptr_t)i) != 0)
			return 1;
	}
	(void)nanosleep(&pause, NULL);
	atomic_store(&done, true);
	for (int i = 0; i < threads; i++) {
		void *n;

		(void)pthread_join(ids[i], &n);
		total += (intptr_t)n;
	}
	seconds = (double)(clock_mono_us() - start_us) / 1e6;
	(void)printf("{\"bench\": \"web_tokens\", \"value\": %.0f, \"unit\": \"lookups/s\", "
	             "\"detail\": {\"threads\": %d, \"token_bytes\": %d}}\n",
	             (double)total / seconds, threads, TOKEN_LEN - 1);
	token_cache_free(&cache);
	return 0;
}
