/*
 * Comments of a configuration file become blanks before libconfuse sees them:
 * it miscounts the lines of what it skips, and its errors would name others.
 * For config.c only.
 */
#ifndef TMTP_BASE_CONFIG_COMMENT_H
#define TMTP_BASE_CONFIG_COMMENT_H

#include <stddef.h>
#include <stdint.h>

/*
 * Overwrites comments, "# ...", "// ..." and slash-star to star-slash, with
 * spaces; ends of lines stay. What looks like one within quotes or within a bare word
 * (https://host) is none, as libconfuse reads them.
 * Returns 0, or the line of a comment that nothing ends.
 */
int config_blank_comments(uint8_t *text, size_t len);

#endif
