/* The version that programs show. Packaging sets it from outside. */
#ifndef TMTP_BASE_VERSION_H
#define TMTP_BASE_VERSION_H

#ifndef TMTP_VERSION
#define TMTP_VERSION "0.1.0"
#endif

#endif
