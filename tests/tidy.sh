#!/bin/sh
# clang-tidy over one file of C, by the compiler's flags in TIDY_CFLAGS; silent when it is clean.
# The checks stand in .clang-tidy.
set -u
# shellcheck disable=SC2086 # a list of flags
found=$(clang-tidy-14 --quiet "$1" -- $TIDY_CFLAGS 2>&1) && exit 0
printf '%s\n' "$found" | grep -vE '^[0-9]+ warnings? (generated|treated)|^Suppressed '
exit 1
