/* Any octets as mail: always a message that our own codec reads back, within measure. */
#include "fuzz.h"

#include "base/text.h"
#include "home/mime.h"

static void
check_fields(const struct mime_mail *m)
{
	const uint8_t salt[DMTP_SALT_LEN] = { 0 };
	struct dmtp_message message = { .from = SLICE("smtp@home.test"),
		                        .to = SLICE("smtp.smtp@home.test") };
	struct buffer out;

	memcpy(message.salt, salt, sizeof(salt));
	buffer_init(&out, (size_t)16 << 20);
	MUST(m->fields_n > 0 && m->fields_n <= MIME_FIELDS_MAX);
	MUST(dmtp_message_encode(&message, m->fields, m->fields_n, &out) == DMTP_MESSAGE_OK);
	buffer_free(&out);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static bool started;
	struct mime_mail *m;

	if (!started)
		mime_start();
	started = true;
	MUST(mime_read(slice_mem(data, size), &m));
	check_fields(m);
	MUST(text_is_utf8(buffer_slice(&m->from)) && text_is_utf8(buffer_slice(&m->address)));
	for (size_t i = 0; i < m->from.len; i++)
		MUST(m->from.data[i] >= 0x20);
	mime_free(&m);
	return 0;
}
