/*
 * The supervisor: one thread that runs the embedded database, if there is one,
 * and each role as a process of its own, and keeps them running. It stays the
 * user that started it; the roles become the configuration's.
 */
#ifndef TMTP_SUPERVISOR_H
#define TMTP_SUPERVISOR_H

/* The environment of a role's process, beside PROCESS_READY_ENV: who its supervisor is, and the
 * configuration's text. */
#define SUPERVISOR_PID_ENV "TMTP_SUPERVISOR_PID"
#define SUPERVISOR_CONFIG_ENV "TMTP_CONFIG_FD"

/*
 * Runs until SIGTERM or SIGINT; SIGHUP reads the file again. Returns the exit
 * code: 0 after a drain, 1 when it could not start (the log says why).
 */
int supervisor_run(const char *config_path);

#endif
