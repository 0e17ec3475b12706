/* What every role does on SIGHUP: see reload.h. */
#include "base/reload.h"

#include "base/log.h"

void
reload_config(const struct config *running,
              void (*take)(void *arg, const struct config *loaded), void *arg)
{
	struct config *loaded = NULL;
	struct buffer text;

	buffer_init(&text, 4096);
	if (config_reload(running, &loaded, &text) != CONFIG_OK) {
		log_error("reload-refused", LOG_B("reason", buffer_slice(&text)));
	} else {
		config_restart_options(running, loaded, &text);
		log_set_level(loaded->log_level);
		take(arg, loaded);
		if (text.len > 0)
			log_info("reloaded", LOG_B("restart_needed_for", buffer_slice(&text)));
		else
			log_info("reloaded");
	}
	buffer_free(&text);
	config_free(&loaded);
}
