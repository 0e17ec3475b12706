/* Runs a fuzz target over files and folders of files: for seeds and for what a fuzzer found. */
#include "fuzz.h"

#include <dirent.h>
#include <stdio.h>
#include <sys/stat.h>

#define FILE_MAX (1 << 22)

static int
replay_file(const char *path)
{
	FILE *f = fopen(path, "rb");
	uint8_t *data = malloc(FILE_MAX), *exact;
	size_t n;

	if (f == NULL || data == NULL) {
		perror(path);
		free(data);
		return 1;
	}
	n = fread(data, 1, FILE_MAX, f);
	(void)fclose(f);
	exact = malloc(n == 0 ? 1 : n); /* ends where its block ends */
	if (exact == NULL) {
		free(data);
		return 1;
	}
	memcpy(exact, data, n);
	(void)LLVMFuzzerTestOneInput(exact, n);
	free(exact);
	free(data);
	return 0;
}

static int
replay_folder(const char *path, size_t *count)
{
	DIR *d = opendir(path);
	struct dirent *e;
	char name[4096];
	int rc = 0;

	if (d == NULL) {
		perror(path);
		return 1;
	}
	while ((e = readdir(d)) != NULL) {
		if (e->d_name[0] == '.')
			continue;
		(void)snprintf(name, sizeof(name), "%s/%s", path, e->d_name);
		rc |= replay_file(name);
		(*count)++;
	}
	(void)closedir(d);
	return rc;
}

int
main(int argc, char **argv)
{
	size_t count = 0;
	int rc = 0;

	for (int i = 1; i < argc; i++) {
		struct stat st;

		if (stat(argv[i], &st) == 0 && S_ISDIR(st.st_mode)) {
			rc |= replay_folder(argv[i], &count);
		} else {
			rc |= replay_file(argv[i]);
			count++;
		}
	}
	printf("%s: %zu inputs\n", argv[0], count);
	return rc != 0 || count == 0;
}
