/* home/mime.h, home/mime_scan.h: mail as fields, and mail that means harm. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/text.h"
#include "home/mime.h"
#include "home/mime_scan.h"

/* Lines end in CRLF as LMTP brings them. */
static struct mime_mail *
read_mail(const char *text)
{
	struct buffer b;
	struct mime_mail *m;

	buffer_init(&b, (size_t)64 << 20);
	for (const char *p = text; *p != '\0'; p++) {
		if (*p == '\n')
			buffer_add_u8(&b, '\r');
		buffer_add_u8(&b, (uint8_t)*p);
	}
	assert_false(b.failed);
	assert_true(mime_read(buffer_slice(&b), &m));
	buffer_free(&b);
	return m;
}

static void
field_is(const struct mime_mail *m, size_t i, enum dmtp_field_name name, const char *type,
         const char *data)
{
	assert_true(i < m->fields_n);
	assert_int_equal(m->fields[i].name, name);
	assert_int_equal(m->fields[i].type.len, strlen(type));
	assert_memory_equal(m->fields[i].type.data, type, strlen(type));
	assert_int_equal(m->fields[i].data.len, strlen(data));
	assert_memory_equal(m->fields[i].data.data, data, strlen(data));
}

static void
text_is(const struct buffer *b, const char *expected)
{
	assert_int_equal(b->len, strlen(expected));
	if (b->len > 0)
		assert_memory_equal(b->data, expected, b->len);
}

#define PLAIN "text/plain"

/* Each is one text field with this content (behind no subject). */
static const struct {
	const char *header, *body, *expected;
} texts[] = {
	{ "X: y\n", "a\nb\n", "a\nb\n" },
	{ "Content-Type: text/plain; charset=iso-8859-1\n", "\xe4", "\xc3\xa4" },
	{ "Content-Type: text/plain; charset=windows-1252\n", "\x80", "\xe2\x82\xac" },
	{ "Content-Type: text/plain; charset=utf-8\n", "a\xff\xc3",
	  "a\xef\xbf\xbd\xef\xbf\xbd" },
	{ "Content-Type: text/plain; charset=x-none\n", "\xc3\xa4", "\xc3\xa4" },
	{ "Content-Type: text/plain; charset=x-none\n", "\xe4", "\xc3\xa4" },
	{ "Content-Type: text/plain\n", "\xe4", "\xc3\xa4" },
	{ "Content-Transfer-Encoding: quoted-printable\n", "a=3D=\nb=C3=A4=\n", "a=b\xc3\xa4" },
	{ "Content-Transfer-Encoding: base64\n", "w6Q=\n", "\xc3\xa4" },
	{ "Content-Type: text/plain; charset=utf-16be\nContent-Transfer-Encoding: base64\n",
	  "IKw=", "\xe2\x82\xac" },
	{ "Content-Transfer-Encoding: base64\n", "AGEAG2IH", " a  b " },
	{ "X: y\n", "a\rb", "a\nb" },
	{ "Content-Type: text/plain; format=flowed\n", "{{name}}", "{{name}}" },
};

static void
test_text_becomes_utf8(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		char mail[512];
		struct mime_mail *m;

		(void)snprintf(mail, sizeof(mail), "%s\n%s", texts[i].header, texts[i].body);
		m = read_mail(mail);
		assert_int_equal(m->fields_n, 1);
		assert_false(m->whole);
		field_is(m, 0, DMTP_MESSAGE, PLAIN, texts[i].expected);
		mime_free(&m);
	}
}

static void
test_header(void **state)
{
	struct mime_mail *m =
	    read_mail("From: =?utf-8?q?J=C3=BC?= <ju@b.test>, x@y.test\n"
	              "Subject: =?iso-8859-1?q?=E4?=\n =?utf-8?b?w7Y=?= a\tb\n"
	              "Date: Tue, 24 Nov 2026 11:00:00 +0100\n\nx");

	(void)state;
	text_is(&m->from, "J\xc3\xbc <ju@b.test>, x@y.test");
	text_is(&m->address, "ju@b.test");
	assert_int_equal(m->date_s, 1795514400);
	field_is(m, 0, DMTP_SUBJECT, PLAIN, "\xc3\xa4\xc3\xb6 a b");
	mime_free(&m);
	m = read_mail(
	    "From: friends: ;\nSubject: =?utf-8?q?a=0Ab=00c=1B?=\nDate: nonsense\n\nx");
	assert_int_equal(m->address.len, 0);
	for (size_t i = 0; i < m->fields[0].data.len; i++)
		assert_true(m->fields[0].data.data[i] >= 0x20);
	mime_free(&m);
	m = read_mail("\n");
	assert_int_equal(m->date_s, -1);
	assert_int_equal(m->from.len + m->address.len, 0);
	field_is(m, 0, DMTP_MESSAGE, PLAIN, "");
	mime_free(&m);
}

/* Cut at a character. */
static void
test_a_long_subject(void **state)
{
	char mail[5000] = "Subject: x";
	struct mime_mail *m;

	(void)state;
	for (int i = 0; i < 1000; i++)
		strcat(mail, "\xc3\xa4");
	strcat(mail, "\n\nx");
	m = read_mail(mail);
	assert_int_equal(m->fields[0].data.len, MIME_SUBJECT_MAX - 1);
	assert_true(text_is_utf8(m->fields[0].data));
	mime_free(&m);
}

static void
test_alternatives_and_attachments(void **state)
{
	struct mime_mail *m = read_mail(
	    "Subject: s\nContent-Type: multipart/mixed; boundary=o\n\npreamble\n--o\n"
	    "Content-Type: multipart/alternative; boundary=i\n\n--i\n\nplain\n--i\n"
	    "Content-Type: multipart/related; boundary=r\n\n--r\nContent-Type: text/html\n\n<b>\n"
	    "--r\nContent-Type: image/png\n\npng\n--r--\n--i\nContent-Type: text/calendar\n\ncal\n"
	    "--i\nContent-Type: text/plain\n\nagain\n--i--\n--o\nContent-Type: text/plain\n\nfooter\n--o\n"
	    "Content-Type: TEXT/HTML\nContent-Disposition: attachment; filename=a.html\n\nx\n--o\n"
	    "Content-Type: nonsense\n\ny\n--o--\nepilogue\n");

	(void)state;
	field_is(m, 0, DMTP_SUBJECT, PLAIN, "s");
	field_is(m, 1, DMTP_MESSAGE, PLAIN, "plain");
	field_is(m, 2, DMTP_MESSAGE, "text/html", "<b>");
	field_is(m, 3, DMTP_ATTACHMENT, "image/png", "png");
	field_is(m, 4, DMTP_ATTACHMENT, "text/calendar", "cal");
	field_is(m, 5, DMTP_ATTACHMENT, PLAIN, "again");
	field_is(m, 6, DMTP_ATTACHMENT, PLAIN, "footer");
	field_is(m, 7, DMTP_ATTACHMENT, "text/html; name=\"a.html\"", "x");
	assert_int_equal(m->fields_n, 9);
	mime_free(&m);
}

static void
test_forwarded_signed_and_report(void **state)
{
	struct mime_mail *m =
	    read_mail("Content-Type: multipart/signed; boundary=s\n\n--s\n"
	              "Content-Type: multipart/mixed; boundary=o\n\n--o\n\ntext\n--o\n"
	              "Content-Type: message/rfc822\n\nSubject: in\n\nside\n--o--\n"
	              "--s\nContent-Type: application/pgp-signature\n\nsig\n--s--\n");

	(void)state;
	field_is(m, 0, DMTP_MESSAGE, PLAIN, "text");
	assert_int_equal(m->fields[1].name, DMTP_ATTACHMENT);
	assert_memory_equal(m->fields[1].type.data, "message/rfc822", 14);
	assert_non_null(memmem(m->fields[1].data.data, m->fields[1].data.len, "side", 4));
	field_is(m, 2, DMTP_ATTACHMENT, "application/pgp-signature", "sig");
	mime_free(&m);
}

static void
test_names_of_attachments(void **state)
{
	static const char *const names[][2] = {
		{ "filename=\"a \\\"b\\\\.pdf\"", "; name=\"a \\\"b\\\\.pdf\"" },
		{ "filename*=utf-8''%C3%A4", "; name*=UTF-8''%C3%A4" },
		{ "filename=\"=?utf-8?q?=C3=A4?=\"", "; name*=UTF-8''%C3%A4" },
		{ "filename=\"\"", "" },
	};
	char mail[1024], type[256];

	(void)state;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		struct mime_mail *m;

		(void)snprintf(
		    mail, sizeof(mail),
		    "Content-Type: application/x\nContent-Disposition: attachment; %s\n\nx",
		    names[i][0]);
		(void)snprintf(type, sizeof(type), "application/x%s", names[i][1]);
		m = read_mail(mail);
		field_is(m, 0, DMTP_ATTACHMENT, type, "x");
		mime_free(&m);
	}
	(void)snprintf(
	    mail, sizeof(mail),
	    "Content-Type: application/x\nContent-Disposition: attachment; filename=%0300d\n\nx",
	    0);
	for (struct mime_mail *m = read_mail(mail); m != NULL; mime_free(&m))
		field_is(m, 0, DMTP_ATTACHMENT, "application/x", "x"); /* too long to be kept */
}

/* --- within measure --------------------------------------------------------------------- */

static char *
repeat(const char *before, const char *part, size_t n, const char *behind)
{
	size_t len = strlen(part);
	char *text = malloc(strlen(before) + n * len + strlen(behind) + 1), *at;

	at = stpcpy(text, before);
	for (size_t i = 0; i < n; i++)
		at = stpcpy(at, part);
	(void)strcpy(at, behind);
	return text;
}

static void
is_whole(char *text, bool expected)
{
	struct mime_mail *m = read_mail(text);

	assert_int_equal(m->whole, expected);
	if (expected) {
		const struct dmtp_field *f = &m->fields[m->fields_n - 1];

		assert_int_equal(f->name, DMTP_ATTACHMENT);
		assert_memory_equal(f->type.data, "message/rfc822", f->type.len);
	}
	mime_free(&m);
	free(text);
}

static void
test_mail_beyond_measure_stays_whole(void **state)
{
	(void)state;
	is_whole(repeat("", "a: b\n", MIME_HEADER_LINES_MAX, "\nx"), false);
	is_whole(repeat("", "a: b\n", MIME_HEADER_LINES_MAX + 1, "\nx"), true);
	is_whole(repeat("A: ", "0123456789", MIME_HEADER_OCTETS_MAX / 10 + 1, "\n\nx"), true);
	is_whole(repeat("\n", "-- \n", MIME_BOUNDARIES_MAX, ""), false);
	is_whole(repeat("\n", "-- \n", MIME_BOUNDARIES_MAX + 1, ""), true);
	is_whole(repeat("Content-Type: multipart/mixed; boundary=x\n\n",
	                "--x\nContent-Type: multipart/mixed; boundary=x\n\n",
	                MIME_CONTAINERS_MAX - 1, ""),
	         false);
	is_whole(repeat("Content-Type: multipart/mixed; boundary=x\n\n",
	                "--x\nContent-Type: multipart/mixed; boundary=x\n\n",
	                MIME_CONTAINERS_MAX, ""),
	         true);
	is_whole(repeat("", "Content-Type:\n message/rfc822\n\n", MIME_CONTAINERS_MAX + 1, ""),
	         true);
	is_whole(repeat("Content-Type: multipart/mixed; boundary=x\n\n", "--x\n\nx\n",
	                MIME_ATTACHMENTS_MAX + 1, "--x--\n"),
	         false);
	is_whole(repeat("Content-Type: multipart/mixed; boundary=x\n\n", "--x\n\nx\n",
	                MIME_ATTACHMENTS_MAX + 2, "--x--\n"),
	         true);
	/* Parts of a digest are messages, whose headers count though they say so nowhere. */
	is_whole(repeat("Content-Type: multipart/digest; boundary=x\n\n--x\n\n", "a: b\n",
	                MIME_HEADER_LINES_MAX + 1, ""),
	         true);
	/* Text in which nothing is a header may be as long as it likes. */
	is_whole(repeat("\n", "Content-Type: multipart/mixed\n", 100000, ""), false);
}

/* What can be told of it still is: the subject, and who it says it is from. */
static void
test_the_header_of_what_stays_whole(void **state)
{
	char *text = repeat("From: a@b.test\nSubject: too much\n\n", "--x\n",
	                    MIME_BOUNDARIES_MAX + 1, "");
	struct mime_mail *m = read_mail(text);

	(void)state;
	assert_true(m->whole);
	text_is(&m->address, "a@b.test");
	field_is(m, 0, DMTP_SUBJECT, PLAIN, "too much");
	assert_int_equal(m->fields_n, 2);
	mime_free(&m);
	free(text);
}

/* Every beginning of a mail is a mail. */
static void
test_every_prefix(void **state)
{
	static const char mail[] =
	    "From: a <a@b.c>\r\nSubject: =?utf-8?q?x?=\r\nContent-Type: multipart/mixed; "
	    "boundary=\"x\"\r\n\r\n--x\r\nContent-Type: text/html; charset=utf-8\r\n"
	    "Content-Transfer-Encoding: base64\r\n\r\nPGI+\r\n--x\r\nContent-Type: "
	    "message/rfc822\r\n\r\nSubject: i\r\n\r\nt\r\n--x--\r\n";

	(void)state;
	for (size_t n = 0; n < sizeof(mail); n++) {
		char *exact = malloc(n + (n == 0)); /* its end is the block's */
		struct mime_mail *m;

		memcpy(exact, mail, n);
		assert_true(mime_read(slice_mem(exact, n), &m));
		assert_true(m->fields_n >= 1);
		mime_free(&m);
		free(exact);
	}
}

static int
setup(void **state)
{
	(void)state;
	mime_start();
	return 0;
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_text_becomes_utf8),
		cmocka_unit_test(test_header),
		cmocka_unit_test(test_a_long_subject),
		cmocka_unit_test(test_alternatives_and_attachments),
		cmocka_unit_test(test_forwarded_signed_and_report),
		cmocka_unit_test(test_names_of_attachments),
		cmocka_unit_test(test_mail_beyond_measure_stays_whole),
		cmocka_unit_test(test_the_header_of_what_stays_whole),
		cmocka_unit_test(test_every_prefix),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
