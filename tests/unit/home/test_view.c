/* home/view, home/registrable: what a member sees of a message, cursors, whose a domain is. */
#include "home/registrable.h"
#include "home/view.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static struct buffer body;

static int
teardown(void **state)
{
	(void)state;
	buffer_free(&body);
	return 0;
}

static struct dmtp_field
field(enum dmtp_field_name name, const char *type, const char *data)
{
	return (struct dmtp_field){ .name = name,
		                    .type = slice_str(type),
		                    .data = slice_str(data) };
}

static struct view_entry
entry_of(const struct dmtp_field *fields, size_t n, const char *variables)
{
	struct dmtp_message m = { .from = SLICE("shop@shop.test"),
		                  .to = SLICE("orders.shop@shop.test"),
		                  .date = 1800000000 };

	buffer_free(&body);
	buffer_init(&body, 1 << 20);
	assert_int_equal(dmtp_message_encode(&m, fields, n, &body), DMTP_MESSAGE_OK);
	return (struct view_entry){ .from = SLICE("shop@shop.test"),
		                    .channel = SLICE("orders"),
		                    .date_s = 1800000000,
		                    .arrived_us = 1800000001000000,
		                    .read_us = -1,
		                    .body = buffer_slice(&body),
		                    .variables = slice_str(variables) };
}

static void
expect(json_t *json, const char *text)
{
	char *got = json_dumps(json, JSON_COMPACT | JSON_ENCODE_ANY);

	assert_non_null(got);
	assert_string_equal(got, text);
	free(got);
	json_decref(json);
}

static void
expect_subject(const struct view_entry *entry, const char *subject)
{
	json_t *list = view_list_form(entry);

	if (subject == NULL)
		assert_true(json_is_null(json_object_get(list, "subject")));
	else
		assert_string_equal(json_string_value(json_object_get(list, "subject")),
		                    subject);
	json_decref(list);
}

static void
test_the_list_form(void **state)
{
	struct dmtp_field f[] = { field(DMTP_MESSAGE, "text/plain", "Hello"),
		                  field(DMTP_SUBJECT, "text/plain", "Dear {{name}}") };
	struct view_entry e = entry_of(f, 2, "d4:name3:Anne");

	(void)state;
	expect(
	    view_list_form(&e),
	    "{\"id\":\"00000000-0000-0000-0000-000000000000\",\"from\":\"shop@shop.test\","
	    "\"channel\":\"orders\",\"subject\":\"Dear Ann\",\"date\":\"2027-01-15T08:00:00Z\","
	    "\"arrived\":\"2027-01-15T08:00:01Z\",\"read\":null}");
	e.withdrawn = true;
	e.body = slice_mem(NULL, 0);
	e.read_us = 1800000002000000;
	expect(view_list_form(&e),
	       "{\"id\":\"00000000-0000-0000-0000-000000000000\",\"from\":\"shop@shop.test\","
	       "\"channel\":\"orders\",\"subject\":null,\"date\":\"2027-01-15T08:00:00Z\","
	       "\"arrived\":\"2027-01-15T08:00:01Z\",\"read\":\"2027-01-15T08:00:02Z\","
	       "\"withdrawn\":true}");
}

/* Whatever octets stand there, and wherever they end, against the end of their memory. */
static void
test_the_list_form_of_every_prefix_and_of_damage(void **state)
{
	struct dmtp_field f[] = { field(DMTP_MESSAGE, "text/plain", "Hello"),
		                  field(DMTP_SUBJECT, "text/plain", "Subject"),
		                  field(DMTP_MESSAGE, "text/html", "<p>Hello</p>") };
	struct view_entry e = entry_of(f, 3, "");
	struct slice whole = e.body;
	size_t shown = 0;

	(void)state;
	for (size_t len = 0; len <= whole.len; len++) {
		uint8_t *cut = malloc(len == 0 ? 1 : len);
		json_t *list, *subject;

		memcpy(cut, whole.data, len);
		e.body = slice_mem(cut, len);
		list = view_list_form(&e);
		subject = json_object_get(list, "subject");
		assert_true(json_is_null(subject) ||
		            strcmp(json_string_value(subject), "Subject") == 0);
		shown += json_is_string(subject);
		json_decref(list);
		for (size_t i = 0; i < len; i++) {
			cut[i] ^= 0x15;
			json_decref(view_list_form(&e));
			json_decref(view_fields(&e));
			cut[i] ^= 0x15;
		}
		free(cut);
	}
	assert_true(shown > 30 && shown + 60 < whole.len); /* before the end, and not at once */
}

static void
test_long_subjects_are_cut_at_a_character(void **state)
{
	char text[VIEW_SUBJECT_MAX + 3], wanted[VIEW_SUBJECT_MAX + 1];
	struct dmtp_field f = { .name = DMTP_SUBJECT, .type = SLICE("text/plain") };
	struct view_entry e;

	(void)state;
	memset(text, 'x', sizeof(text));
	memcpy(text + VIEW_SUBJECT_MAX - 1, "\xc3\xa9", 2);
	f.data = slice_mem(text, VIEW_SUBJECT_MAX + 1);
	e = entry_of(&f, 1, "");
	memset(wanted, 'x', sizeof(wanted));
	wanted[VIEW_SUBJECT_MAX - 1] = '\0';
	expect_subject(&e, wanted);
	f.data = slice_mem(text + 1, VIEW_SUBJECT_MAX);
	e = entry_of(&f, 1, "");
	text[VIEW_SUBJECT_MAX + 1] = '\0';
	expect_subject(&e, text + 1);
}

static void
test_fields_are_escaped_by_their_type(void **state)
{
	struct dmtp_field f[] = {
		field(DMTP_SUBJECT, "text/plain", "{{a}}"),
		field(DMTP_MESSAGE, "text/plain; charset=utf-8", "1 {{a}} \"\n"),
		field(DMTP_MESSAGE, "text/html", "<b title=\"{{a}}\">{{a}}</b>{{none}}"),
		{ .name = DMTP_MESSAGE,
		  .type = SLICE("application/x"),
		  .data = SLICE("\xff\xfe") }
	};
	struct view_entry e = entry_of(f, 4, "d1:a9:<i>&'{{a}e");

	(void)state;
	expect(view_fields(&e),
	       "{\"subject\":\"<i>&'{{a}\",\"message\":["
	       "{\"type\":\"text/plain; charset=utf-8\",\"text\":\"1 <i>&'{{a} \\\"\\n\"},"
	       "{\"type\":\"text/html\",\"text\":\"<b "
	       "title=\\\"{{a}}\\\">&lt;i&gt;&amp;&#39;{{a}</b>\"},"
	       "{\"type\":\"application/x\",\"size\":2}],\"actions\":[],\"attachments\":[]}");
}

static void
test_actions_lead_only_to_https(void **state)
{
	static const struct {
		const char *list, *actions;
	} table[] = {
		{ "# Go\r\nhttps://a.test/x#y\r\n",
		  "[{\"label\":\"Go\",\"url\":\"https://a.test/x#y\"}]" },
		{ "https://a.test/",
		  "[{\"label\":\"https://a.test/\",\"url\":\"https://a.test/\"}]" },
		{ "# A\nhttps://a.test/1\n# B\nhttps://a.test/2",
		  "[{\"label\":\"A\",\"url\":\"https://a.test/"
		  "1\"},{\"label\":\"B\",\"url\":\"https://a.test/2\"}]" },
		{ "# Go\r\nhttp://a.test/\r\n", "[]" },
		{ "# Go\r\njavascript:alert(1)//https://a.test/\r\n", "[]" },
		{ "# Go\r\nhttps://u@a.test/\r\n", "[]" },
		{ "# Go\r\nhttps://a.test/ x\r\n", "[]" },
		{ "# Go\r\nhttps:a.test\r\n", "[]" },
		{ "# Go\r\n https://a.test/\r\n", "[]" },
		{ "# {{a}}\r\nhttps://a.test/{{a}}",
		  "[{\"label\":\"{{a}}\",\"url\":\"https://a.test/{{a}}\"}]" },
		{ "# Go", "[]" },
		{ "", "[]" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		struct dmtp_field f[] = { field(DMTP_SUBJECT, "text/plain", "x"),
			                  field(DMTP_ACTION, "text/uri-list", table[i].list) };
		struct view_entry e = entry_of(f, 2, "d1:a1:be");
		json_t *fields = view_fields(&e);

		expect(json_incref(json_object_get(fields, "actions")), table[i].actions);
		json_decref(fields);
	}
}

static void
test_attachments_by_number(void **state)
{
	struct dmtp_field f[] = { field(DMTP_ATTACHMENT, "a/b", "one"),
		                  { .name = DMTP_ATTACHMENT,
		                    .type = SLICE("c/d"),
		                    .large = true,
		                    .size = 9,
		                    .digest = SLICE("0123456789012345678901234567890!"),
		                    .uris = SLICE("17:https://a.test/xy") },
		                  field(DMTP_ATTACHMENT, "e/f", "three") };
	struct view_entry e = entry_of(f, 3, "");
	struct slice out;
	json_t *fields = view_fields(&e);

	(void)state;
	expect(json_incref(json_object_get(fields, "attachments")),
	       "[{\"type\":\"a/b\",\"size\":3,\"url\":\"/v1/inbox/"
	       "00000000-0000-0000-0000-000000000000/attachments/0\"},"
	       "{\"type\":\"c/d\",\"size\":9},"
	       "{\"type\":\"e/f\",\"size\":5,\"url\":\"/v1/inbox/"
	       "00000000-0000-0000-0000-000000000000/attachments/2\"}]");
	json_decref(fields);
	assert_int_equal(view_attachment(e.body, 0, &out), VIEW_ATTACHED_HERE);
	assert_true(slice_eq_str(out, "one"));
	assert_int_equal(view_attachment(e.body, 1, &out), VIEW_ATTACHED_LARGE);
	assert_int_equal(view_attachment(e.body, 2, &out), VIEW_ATTACHED_HERE);
	assert_true(slice_eq_str(out, "three"));
	assert_int_equal(view_attachment(e.body, 3, &out), VIEW_ATTACHED_NONE);
	assert_int_equal(view_attachment(SLICE("junk"), 0, &out), VIEW_ATTACHED_NONE);
}

/* A text of nothing but variables isn't allowed to become a giant. */
static void
test_expansion_is_bounded(void **state)
{
	struct buffer text, vars;
	struct dmtp_field f = { .name = DMTP_SUBJECT, .type = SLICE("text/plain") };
	struct view_entry e;
	json_t *fields;

	(void)state;
	buffer_init(&text, 1 << 20);
	buffer_init(&vars, 2048);
	for (int i = 0; i < 20000; i++)
		buffer_add_str(&text, "{{a}}");
	buffer_add_str(&vars, "d1:a1000:");
	for (int i = 0; i < 1000; i++)
		buffer_add_u8(&vars, 'x');
	buffer_add_str(&vars, "e");
	f.data = buffer_slice(&text);
	e = entry_of(&f, 1, "");
	e.variables = buffer_slice(&vars);
	fields = view_fields(&e);
	assert_true(json_is_null(json_object_get(fields, "subject")));
	json_decref(fields);
	buffer_free(&text);
	buffer_free(&vars);
}

static void
test_words_of_an_invitation(void **state)
{
	static const struct {
		const char *type, *text, *words;
	} table[] = {
		{ "text/plain", "Join  us,\n\tplease.", "\"Join us, please.\"" },
		{ "text/plain", "See https://x.test/ and www.x.test or x.test/a or x.test now.",
		  "\"See and or or now.\"" },
		{ "text/plain", "//x.test mailto:a@b.test", "null" },
		{ "text/plain", "", "null" },
		{ "text/html", "<b>Join</b>", "null" },
		{ "text/plain", "One. Two.", "\"One. Two.\"" },
	};
	struct dmtp_field f[] = { field(DMTP_SUBJECT, "text/plain", "Title"),
		                  { .name = DMTP_MESSAGE } };
	struct view_entry e;
	json_t *words;

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		f[1] = field(DMTP_MESSAGE, table[i].type, table[i].text);
		e = entry_of(f, 2, "");
		expect(view_words(e.body), table[i].words);
	}
	f[1] = field(
	    DMTP_MESSAGE, "text/plain",
	    "0123456789 0123456789 0123456789 0123456789 0123456789 0123456789 0123456789 "
	    "0123456789 0123456789 0123456789 0123456789 0123456789 0123456789 end");
	e = entry_of(f, 2, "");
	words = view_words(e.body);
	assert_int_equal(json_string_length(words),
	                 131); /* twelve words, and the next one doesn't fit whole */
	json_decref(words);
	expect(view_words(SLICE("junk")), "null");
}

static void
test_cursors_there_and_back(void **state)
{
	static const char *const bad[] = {
		"",
		"-",
		"1",
		"1-",
		"-018f0000-0000-7000-8000-000000000001",
		"01-018f0000-0000-7000-8000-000000000001",
		"1-018F0000-0000-7000-8000-000000000001",
		"1-018f0000-0000-7000-8000-000000000001x",
		"9223372036854775808-018f0000-0000-7000-8000-000000000001"
	};
	struct view_cursor c = { .changed_us = 1800000001000000 }, back, other;
	char text[VIEW_CURSOR_TEXT];

	(void)state;
	c.id = uuid_make();
	view_cursor_format(&c, text);
	assert_true(view_cursor_parse(slice_str(text), &back));
	assert_int_equal(view_cursor_cmp(&c, &back), 0);
	other = c;
	other.id.octets[15] ^= 1;
	assert_true((view_cursor_cmp(&c, &other) < 0) == (view_cursor_cmp(&other, &c) > 0));
	other = c;
	other.changed_us++;
	assert_true(view_cursor_cmp(&c, &other) < 0);
	c.changed_us = INT64_MAX;
	view_cursor_format(&c, text);
	assert_true(view_cursor_parse(slice_str(text), &back));
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_false(view_cursor_parse(slice_str(bad[i]), &back));
}

static void
test_registrable_domains(void **state)
{
	static const struct {
		const char *domain, *registrable;
	} table[] = {
		{ "a.b.example.co.uk", "example.co.uk" }, { "shop.example.com", "example.com" },
		{ "example.com", "example.com" },         { "co.uk", "co.uk" },
		{ "a.shop.test", "shop.test" },           { "localhost", "localhost" },
		{ "user.github.io", "user.github.io" },   { "", "" },
	};
	struct buffer out;

	(void)state;
	buffer_init(&out, 300);
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		buffer_clear(&out);
		registrable_domain(slice_str(table[i].domain), &out);
		assert_true(slice_eq_str(buffer_slice(&out), table[i].registrable));
	}
	buffer_free(&out);
}

/* A person's braces are braces, and her text is there before the entry is opened. */
static void
test_what_a_person_wrote_is_no_template(void **state)
{
	struct dmtp_field fields[] = { field(DMTP_SUBJECT, "text/plain", "{{a}}"),
		                       field(DMTP_MESSAGE, "text/plain", "x {{a}} y") };
	struct view_entry entry = entry_of(fields, 2, "d1:a1:Ze");
	json_t *list, *inside;

	(void)state;
	list = view_list_form(&entry);
	assert_null(json_object_get(list, "text"));
	assert_string_equal(json_string_value(json_object_get(list, "subject")), "Z");
	json_decref(list);
	entry.channel = SLICE("inbox");
	list = view_list_form(&entry);
	assert_string_equal(json_string_value(json_object_get(list, "text")), "x {{a}} y");
	assert_string_equal(json_string_value(json_object_get(list, "subject")), "{{a}}");
	json_decref(list);
	inside = view_fields(&entry);
	assert_string_equal(json_string_value(json_object_get(
				json_array_get(json_object_get(inside, "message"), 0), "text")),
	                    "x {{a}} y");
	json_decref(inside);
}

/* Of mail nobody verified who wrote it, and its braces are its own. */
static void
test_mail(void **state)
{
	struct dmtp_field fields[] = { field(DMTP_SUBJECT, "text/plain", "Dear {{name}}"),
		                       field(DMTP_MESSAGE, "text/html", "<p>{{name}}</p>") };
	struct view_entry e = entry_of(fields, 2, "");

	(void)state;
	e.mail = true;
	e.mail_from = SLICE("Ann <ann@b.test>");
	e.mail_address = SLICE("ann@b.test");
	e.mail_sender = SLICE("");
	expect(
	    view_list_form(&e),
	    "{\"id\":\"00000000-0000-0000-0000-000000000000\",\"from\":\"shop@shop.test\","
	    "\"channel\":\"orders\",\"subject\":\"Dear {{name}}\",\"date\":\"2027-01-15T08:00:00Z\","
	    "\"arrived\":\"2027-01-15T08:00:01Z\",\"read\":null,\"verified\":false,"
	    "\"mail\":{\"from\":\"Ann <ann@b.test>\",\"address\":\"ann@b.test\",\"sender\":\"\"}}");
	expect(view_fields(&e),
	       "{\"subject\":\"Dear {{name}}\",\"message\":[{\"type\":\"text/html\","
	       "\"text\":\"<p>{{name}}</p>\"}],\"actions\":[],\"attachments\":[]}");
}

int
main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(test_what_a_person_wrote_is_no_template, teardown),
		cmocka_unit_test_teardown(test_the_list_form, teardown),
		cmocka_unit_test_teardown(test_the_list_form_of_every_prefix_and_of_damage,
		                          teardown),
		cmocka_unit_test_teardown(test_long_subjects_are_cut_at_a_character, teardown),
		cmocka_unit_test_teardown(test_fields_are_escaped_by_their_type, teardown),
		cmocka_unit_test_teardown(test_actions_lead_only_to_https, teardown),
		cmocka_unit_test_teardown(test_attachments_by_number, teardown),
		cmocka_unit_test_teardown(test_expansion_is_bounded, teardown),
		cmocka_unit_test_teardown(test_words_of_an_invitation, teardown),
		cmocka_unit_test(test_cursors_there_and_back),
		cmocka_unit_test(test_registrable_domains),
		cmocka_unit_test(test_mail),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
